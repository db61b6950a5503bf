"""Memory opened by its folder trusts what a run in that workspace trusts."""

from pathlib import Path

import pytest

from tutelage.config import Config
from tutelage.errors import ConfigError
from tutelage.experience import Experience, Skill, Source
from tutelage.memory import open_memory
from tutelage.types import Split, Task
from tutelage.workspace import Workspace

CUSTOM = Path(__file__).parents[2] / "examples" / "custom_environment"


def test_an_environment_of_ones_own_is_trusted_as_its_class_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(CUSTOM)
    config = Config.model_validate({"workspace": tmp_path, "environments": [{"name": "guess:Guess"}]})
    skill = Experience(
        environment="guess",
        family="number",
        goal="find the number",
        content=Skill(preconditions=(), procedure=("halve the interval each time",), verification=()),
        sources=(Source(trajectory="trj_1", task="guess/number@1"),),
        author="rules (scripted)",
    )
    workspace = Workspace(config)
    try:
        kept = workspace.memory.add(skill)
    finally:
        workspace.close()
    with open_memory(tmp_path) as memory:
        assert memory.trusts(kept)
        task = Task(environment="guess", family="number", seed=9, split=Split.TRAIN)
        assert [item.id for item in memory.recall(task, "find the number", "").shown] == [kept.id]


def test_where_there_is_no_workspace_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no workspace at"), open_memory(tmp_path):
        pass
