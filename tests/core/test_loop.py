"""What is refused before anything is played, and that an unfinished cycle goes on all the same where it can: with less
memory for a stage, or after an upgrade."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tutelage import loop
from tutelage.config import Config
from tutelage.cycle import collect, experience_trajectories
from tutelage.errors import ConfigError
from tutelage.jobs.execute import permanent
from tutelage.progress import Reporter
from tutelage.training import need
from tutelage.workspace import Workspace

QUIET = Reporter(None)
STUDENT = {"weights": "tiny", "dtype": "float32", "max_new_tokens": 6}


@pytest.fixture
def config(tmp_path: Path) -> Callable[..., Config]:
    def make(student: dict[str, object] = {}, **stage: object) -> Config:  # noqa: B006
        return Config.model_validate(
            {
                "workspace": tmp_path / "workspace",
                "environments": [{"name": "toy"}],
                "teacher": {"model": "expert/toy"},
                "student": STUDENT | student,
                "collect": {"demonstrations": 3, "oracle": 0, "mistaken": 0, "explored": 0, "guarded": 0},
                "act": {"max_steps": 3},
                "stages": [{"type": "sft", "steps": 1, "batch_size": 32, **stage}],
            }
        )

    return make


def test_nothing_is_played_for_a_student_that_cannot_be_trained(
    config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = Workspace(config())
    monkeypatch.setattr(need, "available", lambda: need.LIBRARIES)
    with pytest.raises(ConfigError, match=r"stages.0 \(sft\) needs at least .* smaller student") as refused:
        loop.run(workspace, "run", QUIET)
    assert not permanent(refused.value), "a job tries again, for by then there may be more"
    assert permanent(ConfigError("nonsense"))
    assert workspace.record.items("loop") == {}
    workspace.close()


def test_a_cycle_that_was_refused_goes_on_with_what_the_message_says(
    config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Workspace(config())
    collect(first, 1, QUIET)
    known = experience_trajectories(first)
    small = config(micro_batch_size=1)
    fits = need.needs(small, "tiny", known)[0].total
    free = iter([2**40, fits])  # at the start; and when training begins, as others have taken it
    monkeypatch.setattr(need, "available", lambda: next(free, fits))
    with pytest.raises(ConfigError, match=r"set stages.0.micro_batch_size = 1 ") as refused:
        loop.run(first, "train", QUIET)
    assert "lora" not in str(refused.value)
    first.close()
    for other in (config(steps=2), config({"method": "lora"})):
        workspace = Workspace(other)
        with pytest.raises(ConfigError, match="begun with other settings"):
            loop.run(workspace, "train", QUIET)
        workspace.close()
    last = Workspace(small)
    assert loop.run(last, "train", QUIET) == 1
    assert [student.stage for student in last.record.students()] == ["base", "sft"]
    last.close()


def test_a_cycle_that_an_older_version_began_goes_on(config: Callable[..., Config]) -> None:
    workspace = Workspace(config())
    collect(workspace, 1, QUIET)
    begun = workspace.config.model_dump(mode="json")
    del begun["memory"]["normalise"], begun["gate"], begun["stages"][0]["schedule"]
    workspace.record.put("loop", "1", {"kind": "train", "status": "running", "config": begun, "created": "then"})
    assert loop.run(workspace, "train", QUIET) == 1
    begun["gate"] = {"least_gain": 0.0}
    workspace.record.put("loop", "2", {"kind": "train", "status": "running", "config": begun, "created": "then"})
    with pytest.raises(ConfigError, match=r"begun with gate\.least_gain, which this version"):
        loop.run(workspace, "train", QUIET)
    workspace.close()
