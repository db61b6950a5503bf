"""Jobs as processes: real ones, doing what jobs do and what they should not."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

import psutil
import pytest
from waiting import until

from tutelage.config import Config, JobsConfig
from tutelage.jobs.attend import HANDLE, KEPT, MOST, BoundedFile, elsewhere, last_lines, output_file, place
from tutelage.jobs.dispatcher import Dispatcher
from tutelage.jobs.launcher import launcher
from tutelage.jobs.local import ATTEMPTS_KEPT, LocalLauncher
from tutelage.jobs.model import Again, State
from tutelage.jobs.store import JobStore
from tutelage.record import Record

NEW_SESSION = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', {code!r}], start_new_session=True)"
"""Starts a process in a session of its own; twice over, one whose parent ends at once."""


class Jobs:
    """Launchers of one workspace, and stand-ins for jobs."""

    def __init__(self, folder: Path) -> None:
        self.programs = folder / "programs"
        self.workspace = folder / "a workspace"
        self.programs.mkdir()
        self.workspace.mkdir()
        self.handles: list[str] = []

    def launcher(self, code: str = "") -> LocalLauncher:
        (self.programs / "stand_in.py").write_text(code)
        return LocalLauncher(JobsConfig(), self.workspace, program="stand_in")

    def start(self, code: str, job: str = "job_1", attempt: int = 1) -> tuple[LocalLauncher, str]:
        launched = self.launcher(code)
        self.handles.append(launched.start(job, attempt))
        return launched, self.handles[-1]


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Jobs]:
    found = Jobs(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(found.programs))
    yield found
    for handle in found.handles:
        found.launcher().stop(handle, grace=0)


def ended(launched: LocalLauncher, handle: str) -> None:
    until(lambda: launched.alive(handle) is False)


def noted(jobs: Jobs, name: str) -> int:
    """The number that a stand-in wrote to a file, once it has."""
    path = jobs.workspace / name
    until(lambda: path.exists() and path.read_text().endswith("\n"))
    return int(path.read_text())


def gone(pid: int) -> bool:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    return True


SLEEPS = "import os, sys, time; open(sys.argv[1] + '/pid', 'w').write(f'{os.getpid()}\\n'); time.sleep(600)"


def test_configured_launcher_is_the_local_one(tmp_path: Path) -> None:
    assert isinstance(launcher(JobsConfig(), tmp_path), LocalLauncher)


def test_output_is_kept_without_secrets_and_says_how_it_ended(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "quite-a-secret-7")
    code = (
        "import os, sys\nprint(sys.argv[1:])\nprint('key', os.environ['SOME_API_KEY'], file=sys.stderr)\n"
        "print('10 %', end='\\r')\nprint('20 %', end='\\r')\nprint('x' * 100_000)\nsys.exit(3)"
    )
    launched, handle = jobs.start(code)
    ended(launched, handle)
    path = output_file(jobs.workspace, "job_1", 1)
    lines = path.read_text().splitlines()
    assert repr([str(jobs.workspace), "job_1", "1"]) in lines
    assert "key [secret]" in lines
    assert lines[-1] == "ended with exit code 3"
    assert not any("%" in line for line in lines)
    assert max(map(len, lines)) < 10_000
    assert launched.output(handle).endswith("ended with exit code 3")
    assert "quite-a-secret-7" not in path.read_text()


def test_an_attempt_is_started_once(jobs: Jobs) -> None:
    launched = jobs.launcher(SLEEPS)
    with ThreadPoolExecutor(8) as pool:
        handles = set(pool.map(lambda _: jobs.launcher(SLEEPS).start("job_1", 1), range(8)))
    jobs.handles += handles
    assert len(handles) == 1
    noted_at = output_file(jobs.workspace, "job_1", 1).with_suffix(".pid")
    noted_at.write_text("")  # as if killed between starting it and noting that
    assert {launched.start("job_1", 1)} == handles
    launched.stop(*handles, grace=0)
    assert {launched.start("job_1", 1)} == handles  # nor again when it is over
    assert launched.alive(*handles) is False
    second = launched.start("job_1", 2)
    jobs.handles.append(second)
    assert launched.alive(second) is True


def test_a_copy_of_a_workspace_leaves_the_jobs_of_the_other_alone(jobs: Jobs, tmp_path: Path) -> None:
    launched, handle = jobs.start(SLEEPS)
    copy = LocalLauncher(JobsConfig(), tmp_path / "restored", program="stand_in")
    assert copy.alive(handle) is False
    copy.stop(handle, grace=0)
    assert launched.alive(handle) is True
    own = copy.start("job_1", 1)
    assert own != handle
    copy.stop(own, grace=0)
    assert (copy.alive(own), launched.alive(handle)) == (False, True)


def test_a_job_that_was_just_started_counts_as_alive(jobs: Jobs) -> None:
    """For a moment the kernel knows a process without its command line."""
    launched, other = jobs.launcher(SLEEPS), jobs.launcher(SLEEPS)
    for attempt in range(1, 11):
        jobs.handles.append(launched.start("job_1", attempt))
        assert other.alive(jobs.handles[-1]) is True
        assert launched.alive(jobs.handles[-1]) is True


def test_handles_hold_across_processes_and_pids_that_are_used_again(jobs: Jobs) -> None:
    code = (
        "import sys; from pathlib import Path; from tutelage.config import JobsConfig\n"
        "from tutelage.jobs.local import LocalLauncher\n"
        "workspace = Path(sys.argv[1]); launched = LocalLauncher(JobsConfig(), workspace, program='stand_in')\n"
        "print(launched.start('job_1', 1), flush=True)\n"
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    )
    launched = jobs.launcher(SLEEPS)
    starter = subprocess.run(
        [sys.executable, "-c", code, str(jobs.workspace)], capture_output=True, text=True, check=False
    )
    assert starter.returncode == -signal.SIGKILL
    handle = starter.stdout.strip()
    jobs.handles.append(handle)
    assert launched.alive(handle) is True
    host, _, job, attempt = handle.rsplit("/", 3)
    assert launched.alive(f"{host}/{os.getpid()}/{job}/{attempt}") is False
    assert launched.alive(f"another-{handle}") is None
    launched.stop(f"{host}/{os.getpid()}/{job}/{attempt}", grace=0)
    launched.stop(handle, grace=0)
    assert launched.alive(handle) is False


def test_of_a_handle_that_another_launcher_gave_nothing_is_known(jobs: Jobs) -> None:
    """Jobs may run while the settings come to name another launcher; their leases tell about them."""
    launched = jobs.launcher()
    for foreign in ("job_3f2a-1-0a1b2c3d", "pod/job_1", ""):
        assert launched.alive(foreign) is None
        launched.stop(foreign, grace=0)
        assert launched.output(foreign) == ""


def test_a_job_knows_its_handle_also_if_nobody_else_got_to_note_it(jobs: Jobs) -> None:
    launched, handle = jobs.start(f"import os; print(os.environ[{HANDLE!r}])")
    ended(launched, handle)
    assert launched.output(handle) == handle


def test_a_job_is_read_to_its_end_also_when_the_disk_is_full(tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to("/dev/full")
    job = "print('x' * 1_000_000, flush=True); open('done', 'w').close(); raise SystemExit(3)"
    attended = "import sys; from pathlib import Path; from tutelage.jobs.attend import attend; " + (
        f"sys.exit(attend([sys.executable, '-c', {job!r}], Path('out'), cwd=Path()))"
    )
    found = subprocess.run([sys.executable, "-c", attended], cwd=tmp_path, timeout=60, check=False, capture_output=True)
    assert (found.returncode, (tmp_path / "done").exists()) == (3, True)


def test_a_job_that_is_asked_to_end_may_tidy_up(jobs: Jobs) -> None:
    code = (
        "import os, signal, sys, time\n"
        "def tidy(*_): print('tidied'); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, tidy)\n" + SLEEPS
    )
    launched, handle = jobs.start(code)
    noted(jobs, "pid")
    launched.stop(handle, grace=60)
    assert launched.alive(handle) is False
    assert launched.output(handle) == "tidied"


def test_a_deaf_job_is_killed_with_all_that_it_started(jobs: Jobs) -> None:
    child = (
        "import os, pathlib, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        f"pathlib.Path({str(jobs.workspace)!r}, 'child').write_text(str(os.getpid()) + chr(10)); time.sleep(600)"
    )
    code = (
        "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        + NEW_SESSION.format(code=NEW_SESSION.format(code=child))
        + "\n"
        + SLEEPS
    )
    launched, handle = jobs.start(code)
    job, orphan = noted(jobs, "pid"), noted(jobs, "child")
    launched.stop(handle, grace=0.2)
    assert launched.alive(handle) is False
    until(lambda: gone(job) and gone(orphan))
    assert launched.output(handle).startswith("killed by SIGKILL")


@pytest.mark.parametrize("ending", ["", "; os.kill(os.getpid(), 9)"])
def test_nothing_is_left_behind_by_a_job_that_ends(jobs: Jobs, ending: str) -> None:
    child = (
        "import os, pathlib, time; "
        f"pathlib.Path({str(jobs.workspace)!r}, 'child').write_text(str(os.getpid()) + chr(10)); time.sleep(600)"
    )
    waits = (
        f"import os, time\nwhile not os.path.exists({str(jobs.workspace / 'child')!r}): time.sleep(0.01)\n{ending[2:]}"
    )
    launched, handle = jobs.start(f"{NEW_SESSION.format(code=NEW_SESSION.format(code=child))}\n{waits}")
    ended(launched, handle)
    assert gone(noted(jobs, "child"))


def test_a_job_ends_with_its_attendant(jobs: Jobs) -> None:
    launched, handle = jobs.start(SLEEPS)
    job = noted(jobs, "pid")
    os.kill(int(handle.rsplit("/", 3)[1]), signal.SIGKILL)
    until(lambda: gone(job))
    assert launched.alive(handle) is False


def test_what_is_written_stays_bounded(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with BoundedFile(path) as file:
        for number in range(20_000):
            file.write(f"{number:100}\n")
            assert number % 1000 or path.stat().st_size <= MOST + 200
    text = path.read_text()
    assert text.startswith("[what came before was dropped]\n")
    lines = text.splitlines()[1:]
    assert [int(line) for line in lines] == list(range(20_000 - len(lines), 20_000))
    assert len(text) > KEPT / 2
    assert last_lines(path, characters=250).split() == ["19998", "19999"]
    assert last_lines(tmp_path / "none", characters=10) == ""


def test_output_of_old_attempts_goes(jobs: Jobs) -> None:
    folder = output_file(jobs.workspace, "job_0", 1).parent
    folder.mkdir()
    for number in range(ATTEMPTS_KEPT + 5):
        for suffix in ("out", "pid"):
            path = folder / f"job_0-{number}.{suffix}"
            path.touch()
            os.utime(path, (number, number))
    launched, handle = jobs.start("")
    ended(launched, handle)
    left = {path.name for path in folder.iterdir()}
    assert {"job_1-1.out", "job_1-1.pid", "job_0-6.out", "job_0-6.pid"} <= left
    assert "job_0-5.out" not in left
    assert len(left) == 2 * ATTEMPTS_KEPT


def test_a_job_runs_only_where_its_record_is_the_same_file(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        Record.open(folder).close()
    (tmp_path / "link").symlink_to(first)
    assert elsewhere(tmp_path / "link", tmp_path, place(first)) == ""
    assert "is not the folder" in elsewhere(second, None, place(first))
    assert "is not the folder" in elsewhere(first, None, f"another{place(first)}")
    assert "does not see the workspace" in elsewhere(tmp_path / "third", None, place(first))
    assert "does not see the folder" in elsewhere(first, tmp_path / "third", place(first))


DISPATCHES = """
import os, signal, sys
from pathlib import Path
from tutelage.config import Config, JobsConfig
from tutelage.jobs.dispatcher import Dispatcher
from tutelage.jobs.local import LocalLauncher
from tutelage.record import Record
folder, moment = Path(sys.argv[1]), sys.argv[2]
record, config = Record.open(folder), Config(jobs=JobsConfig(lease=3 if moment == "leased" else 60, heartbeat=1))
launched = LocalLauncher(config.jobs, folder, program="stand_in")
dispatcher = Dispatcher(record, folder, config, launched)
def die(*given):
    os.kill(os.getpid(), signal.SIGKILL)
if moment == "leased":
    launched.start = die
if moment == "started":
    dispatcher.store.handled = die
dispatcher.tick()
die()
"""
"""A dispatcher that is killed: after it took a job, after it started its process, at the end."""
WORKS = """
import os, sys, time
from pathlib import Path
from tutelage.jobs.attend import HANDLE
from tutelage.jobs.model import State
from tutelage.jobs.store import JobStore
from tutelage.record import Record
folder, job, attempt = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
store = JobStore(Record.open(folder))
assert store.started(job, attempt, f"host:{os.getpid()}", os.environ[HANDLE], time.time())
while not (folder / "go").exists():
    store.beat(job, attempt, time.time(), 60)
    time.sleep(0.05)
assert store.finish(job, attempt, State.SUCCEEDED)
"""


@pytest.mark.parametrize("moment", ["leased", "started", "attendant"])
def test_a_job_is_done_once_whoever_is_killed_while_it_is_taken(jobs: Jobs, moment: str) -> None:
    jobs.launcher(WORKS)
    with closing(Record.open(jobs.workspace)) as record:
        store = JobStore(record)
        job = store.submit("evaluate", by="hand:test")[0]
        killed = subprocess.run([sys.executable, "-c", DISPATCHES, str(jobs.workspace), moment], check=False)
        assert killed.returncode == -signal.SIGKILL
        config = Config()
        working = Dispatcher(
            record, jobs.workspace, config, LocalLauncher(config.jobs, jobs.workspace, program="stand_in")
        )
        if moment != "leased":
            until(lambda: store.get(job.id).state is State.RUNNING)
            handle = store.get(job.id).handle
            jobs.handles.append(handle)
            assert working.tick() == 0, "it runs, and is not started again"
            assert jobs.launcher(WORKS).alive(handle) is True, "it can be stopped"
        if moment == "attendant":
            os.kill(int(handle.rsplit("/", 3)[1]), signal.SIGKILL)
        (jobs.workspace / "go").touch()
        until(lambda: working.tick() is None or store.get(job.id).over)
        taken = 1 if moment in ("leased", "attendant") else 0
        found = store.get(job.id)
        assert (found.state, found.times(Again.TAKEN_OVER), found.last.attempt) == (State.SUCCEEDED, taken, 1 + taken)
