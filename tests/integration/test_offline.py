"""Nothing phones home: what runs with local parts reaches nobody beyond loopback, whatever language its parts are in.

`watched.py` runs the commands. Where the kernel allows network namespaces (as root, or for everybody), every
packet counts, native code's too; elsewhere only what Python processes do is seen, by audit events.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tutelage.training import weights

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SILENCING = ("HF_", "TRANSFORMERS_", "LITELLM_", "CHROMA_", "ANONYMIZED_", "DO_NOT_TRACK", "OTEL_", "WANDB_")
"""Settings by which libraries are kept quiet; those of this process must not hide that the command sets none."""

SHORT = """
workspace = "workspace"
environments = [{ name = "toy" }]
teacher = { model = "expert/*" }
student = { weights = "tiny", dtype = "float32", max_new_tokens = 16 }
act = { width = 8, max_steps = 4 }
collect = { demonstrations = 2, mistaken = 1, explored = 1, guarded = 1 }
evaluate = { episodes = 2, between = 0, with_memory = 2, test = 0 }
evidence = { pairs = 4 }
stages = [
    { type = "sft", steps = 4, batch_size = 4, learning_rate = 1e-3 },
    { type = "grpo", steps = 1, batch_size = 4, group_size = 2 },
    { type = "sdpo", steps = 1, batch_size = 4, group_size = 2 },
]
"""
"""`configs/toy.toml` with few of everything."""

CONNECT = "import socket; socket.create_connection(('192.0.2.1', 80), timeout=1)"
LOOK_UP = "import socket; socket.getaddrinfo('example.org', 80)"
NATIVE = "getent hosts example.org"
LOOPBACK = """
import socket
with socket.create_server(("127.0.0.1", 0)) as server:
    socket.create_connection(("localhost", server.getsockname()[1])).close()
"""
SERVED = f"""
import sys, time
from pathlib import Path
sys.path.insert(0, {str(HERE.parent)!r})
import openai, serving
with serving.serving(Path("log.txt"), "tiny") as served:
    client = openai.OpenAI(base_url=served.url, api_key="none")
    client.chat.completions.create(
        model=served.name, messages=[{{"role": "user", "content": "Hello"}}], max_tokens=4
    )
"""

TRACKED = """
from pathlib import Path
from tutelage.config import TrackingConfig
from tutelage.training.tracking import Run, publish
publish(Run("1/0-sft", {"seed": 0}, [(1, {"loss": 2.0})]), TrackingConfig(to="wandb"), Path())
assert list(Path().glob("wandb/offline-run-*/*.wandb"))
"""


@dataclass(frozen=True)
class Report:
    means: list[str]
    code: int
    seen: list[str]


def watched(folder: Path, *command: str) -> Report:
    """Run a command in `folder` as on a fresh machine, and say whom it tried to reach."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(SILENCING)}
    environ |= {"HOME": str(folder), "TUTELAGE_CACHE": str(weights.cache_folder()), "OMP_WAIT_POLICY": "PASSIVE"}
    weights.ensure("tiny")
    report = folder / "report.json"
    done = subprocess.run(
        [sys.executable, HERE / "watched.py", report, *command],
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert report.exists(), done.stderr[-3000:]
    found = Report(**json.loads(report.read_text()))
    print(found, done.stdout[-2000:], done.stderr[-2000:])
    return found


@pytest.mark.parametrize(("code", "said"), [(CONNECT, "192.0.2.1"), (LOOK_UP, "example.org")])
def test_an_attempt_is_seen_by_every_means(tmp_path: Path, code: str, said: str) -> None:
    report = watched(tmp_path, sys.executable, "-c", code)
    assert report.code != 0, "nobody answers there"
    kinds = {"audit" if line.startswith("socket.") else "packets" for line in report.seen if said in line}
    assert kinds == set(report.means)


def test_an_attempt_of_native_code_is_seen_as_packets(tmp_path: Path) -> None:
    report = watched(tmp_path, "sh", "-c", NATIVE)
    assert report.code != 0
    assert bool(report.seen) == ("packets" in report.means)


def test_loopback_is_no_attempt(tmp_path: Path) -> None:
    report = watched(tmp_path, sys.executable, "-c", LOOPBACK)
    assert (report.code, report.seen) == (0, [])


def test_a_whole_cycle_reaches_nobody(tmp_path: Path) -> None:
    """Collecting, judging, memory in Chroma, three training stages, evaluation, the gate, the report, a query."""
    (tmp_path / "short.toml").write_text(SHORT)
    tutelage = f"{sys.executable} -m tutelage.cli"
    cycle = f"{tutelage} run --config short.toml && {tutelage} report && {tutelage} memory query 'open the page'"
    report = watched(tmp_path, "sh", "-c", cycle)
    assert (report.code, report.seen) == (0, [])


def test_a_page_in_the_browser_reaches_nobody(tmp_path: Path) -> None:
    """Browsers like to tell their makers that they started."""
    episode = ["rollout", "--policy", "expert", "--env", "miniwob", "--family", "click-button", "-n", "1"]
    report = watched(tmp_path, sys.executable, "-m", "tutelage.cli", *episode)
    assert (report.code, report.seen) == (0, [])


def test_a_local_model_server_and_its_client_reach_nobody(tmp_path: Path) -> None:
    report = watched(tmp_path, sys.executable, "-c", SERVED)
    assert (report.code, report.seen) == (0, [])


def test_figures_for_a_tracker_stay_here(tmp_path: Path) -> None:
    """Its makers would like to hear of them, and of its mistakes."""
    report = watched(tmp_path, sys.executable, "-c", TRACKED)
    assert (report.code, report.seen) == (0, [])
