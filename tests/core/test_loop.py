"""What is refused before anything is played, and that an unfinished cycle goes on all the same where it can: with less
memory for a stage, or after an upgrade."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tutelage import loop
from tutelage.config import Config
from tutelage.cycle import collect, cycle_students, experience_trajectories, start_of, train_stage
from tutelage.errors import ConfigError
from tutelage.giving_up import give_up
from tutelage.jobs.execute import permanent
from tutelage.lineage import config_digest
from tutelage.progress import Reporter
from tutelage.training import need, weights
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


def test_nothing_is_played_for_episodes_longer_than_the_model_takes(config: Callable[..., Config]) -> None:
    workspace = Workspace(config({"max_length": 8193}))
    with pytest.raises(ConfigError, match="max_length = 8193 is more than the 8192 tokens that tiny") as error:
        loop.run(workspace, "run", QUIET)
    assert permanent(error.value)
    assert workspace.record.items("loop") == {}
    workspace.close()
    weights.check_length("tiny", 8192)


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


def test_a_cycle_of_a_job_goes_on_with_the_memory_that_it_is_given_now(config: Callable[..., Config]) -> None:
    begun = config().model_dump(mode="json")
    light = {"micro_batch_size": 1, "gradient_checkpointing": True}
    (stage,) = loop.own_settings(config(**light), begun).stages
    assert stage == config(**light).stages[0]
    for other in (config(steps=2, **light), config({"processes": 2}, **light)):
        found = loop.own_settings(other, begun)
        assert (found.stages, found.student) == (config().stages, config().student), "what it learns stays"


def test_what_is_noted_of_the_settings_is_what_is_learnt_by(config: Callable[..., Config]) -> None:
    noted = config_digest(config())
    same = config(micro_batch_size=1, gradient_checkpointing=True).model_copy(update={"workspace": Path("elsewhere")})
    assert config_digest(same) == noted != config_digest(config(steps=2))


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


class Killed(BaseException):
    """Stands in for the end of the process."""


def killed(*_: object, **__: object) -> None:
    raise Killed


def test_a_cycle_goes_on_from_the_student_it_began_with(
    config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = Workspace(config())
    collect(workspace, 1, QUIET)
    loop.run(workspace, "train", QUIET)
    base, first = workspace.record.students()
    workspace.record.promote(first.id, reason="test", evidence={})
    with monkeypatch.context() as patch:
        patch.setattr(weights, "save", killed)
        with pytest.raises(Killed):
            loop.run(workspace, "train", QUIET)
    workspace.record.promote(base.id, reason="withdrawn meanwhile", evidence={})
    assert cycle_students(workspace, 2, 1) == [first]
    assert loop.run(workspace, "train", QUIET) == 2
    assert [student.parent for student in workspace.record.students()] == [None, base.id, first.id]
    body = workspace.record.get("loop", "2")
    assert body is not None
    workspace.record.put("loop", "2", {name: value for name, value in body.items() if name != "start"})
    assert start_of(workspace, 2) == base, "an older version noted none"
    workspace.close()


def test_checkpoints_are_of_the_student_that_they_began_with(
    config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = Workspace(config(steps=2, checkpoint_every=1, batch_size=2))
    collect(workspace, 1, QUIET)
    (stage,) = workspace.config.stages
    base = workspace.base_student()
    first = train_stage(workspace, 1, 0, stage, base, QUIET)
    with monkeypatch.context() as patch:
        patch.setattr(weights, "save", killed)
        with pytest.raises(Killed):
            train_stage(workspace, 2, 0, stage, first, QUIET)
    assert (workspace.folder / "students" / "2.checkpoints" / "checkpoint-2").is_dir()
    other = train_stage(workspace, 2, 0, stage, base, QUIET)
    again = train_stage(workspace, 2, 0, stage, base, QUIET, key="again")
    assert (other.label, again.label) == ("student@2", "student@3")
    assert other.digest == again.digest, "it was trained from the base, not gone on with"
    workspace.close()


def test_giving_up_removes_what_is_its_own(config: Callable[..., Config]) -> None:
    workspace = Workspace(config())
    workspace.base_student()
    workspace.record.put("loop", "1", {"kind": "train", "status": "running", "config": {}})
    folder = workspace.folder / "students"
    left = ("1", "1.checkpoints", "1.processes", ".1.ab_d3f6h", "0.checkpoints", "2026.11.22", ".1.notes", "1 of mine")
    for name in left:
        (folder / name).mkdir(parents=True)
    (folder / "9.tar").write_text("")
    (folder / "8").write_text("")
    (folder / "7").symlink_to(folder / "2026.11.22")
    give_up(workspace, 1)
    assert {path.name for path in folder.iterdir()} == {*left[4:], "9.tar", "8", "7"}
    workspace.close()
