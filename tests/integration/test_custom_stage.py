"""The example of a training stage outside the library: one file and one line of its own registration, and a cycle
trains with it."""

import tomllib
from contextlib import closing
from pathlib import Path

import pytest

from tutelage import loop
from tutelage.config import Config, load_config
from tutelage.errors import ConfigError
from tutelage.progress import Reporter
from tutelage.workspace import Workspace

FOLDER = Path(__file__).parents[2] / "examples" / "custom_stage"
SETTINGS = {
    "environments": "[{name = 'toy', families = ['press']}]",
    "student.weights": "tiny",
    "student.dtype": "float32",
    "student.max_new_tokens": "6",
    "act.max_steps": "2",
    "collect.demonstrations": "2",
    "collect.mistaken": "0",
    "collect.explored": "0",
    "collect.guarded": "0",
    "evaluate.episodes": "2",
    "evaluate.with_memory": "0",
    "evaluate.test": "0",
    "evidence.pairs": "0",
    "stages": "[{type = 'reinforce', steps = 2, batch_size = 4, learning_rate = 1e-3}]",
}


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The example with the metadata that installing it would write, on the path."""
    groups = tomllib.loads((FOLDER / "pyproject.toml").read_text())["project"]["entry-points"]
    metadata = tmp_path / "site" / "tutelage_reinforce-0.1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: tutelage-reinforce\nVersion: 0.1.0\n")
    (metadata / "entry_points.txt").write_text(
        "".join(f"[{group}]\n{name} = {path}\n" for group, names in groups.items() for name, path in names.items())
    )
    monkeypatch.syspath_prepend(FOLDER)
    monkeypatch.syspath_prepend(metadata.parent)


def settings(folder: Path, **more: str) -> list[str]:
    return [f"{key}={value}" for key, value in {"workspace": str(folder), **SETTINGS, **more}.items()]


@pytest.mark.usefixtures("installed")
def test_a_cycle_trains_with_it(tmp_path: Path) -> None:
    config = load_config(None, settings(tmp_path / "w"))
    assert Config.model_validate_json(config.model_dump_json()) == config, "a workspace goes on with what it kept"
    with closing(Workspace(config)) as workspace:
        loop.run(workspace, "run", Reporter(None))
        record = workspace.record
        before, student = record.students()
        assert (student.stage, student.parent, student.settings["steps"]) == ("reinforce", before.id, 2)
        assert (workspace.folder / student.weights / "model.safetensors").is_file()
        assert len(student.trajectories) == 8
        assert {record.trajectory(name).task.split.value for name in student.trajectories} == {"train"}
        assert {entry["step"] for entry in record.metrics("1/0-reinforce")} == {1, 2}
        evaluated = {item.policy for item in record.trajectories() if item.task.split.value == "validation"}
        assert len(evaluated) == 2, "the new student is measured against the one before it"


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("stages", "said"),
    [
        ("[{type = 'reinforce', steps = 0}]", "stages.0.*steps: Input should be greater than or equal to 1"),
        ("[{type = 'reinforce', group_size = 3}]", "group_size must divide batch_size"),
        ("[{type = 'reinforced'}]", "unknown stage 'reinforced'; known: .*reinforce, sdpo"),
        ("[{type = 'reinforce:run'}]", "no class derived from StageConfig"),
        ("[{steps = 3}]", "stages.0: a stage names its type"),
    ],
)
def test_nonsense_is_refused_when_the_configuration_is_read(tmp_path: Path, stages: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_config(None, settings(tmp_path, stages=stages))


@pytest.mark.usefixtures("installed")
def test_it_averages_no_gradients_so_it_runs_in_one_process(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="reinforce runs in one process"):
        load_config(None, [*settings(tmp_path), "student.processes=2"])


def test_it_is_unknown_where_it_is_not_installed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown stage 'reinforce'; known: distill, grpo, sdpo, sft"):
        load_config(None, settings(tmp_path))
