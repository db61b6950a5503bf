"""Student versions on real, tiny weights: what is noted, what a changed file does, deleting, comparing, exporting."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from made_students import made, opened, promoted
from peft import PeftModel
from transformers import AutoModelForCausalLM

from tutelage import lineage, stats, versions
from tutelage.cycle import DEMONSTRATIONS, run_and_record, train_stage
from tutelage.errors import ConfigError, MissingPart, RecordError, TutelageError
from tutelage.gate import promote_by_hand, rollback
from tutelage.jobs.store import JobStore
from tutelage.jobs.work import MEASURED
from tutelage.measures import Student, address
from tutelage.progress import Reporter
from tutelage.service_config import JobKind
from tutelage.serving.in_use import InUse
from tutelage.stage_config import SftConfig
from tutelage.training import content, exporting, weights
from tutelage.training.base import weights_of
from tutelage.types import Ending, Split, Task, Trajectory
from tutelage.version_compare import compare, play
from tutelage.workspace import Workspace

QUIET = Reporter(None)
STAGE = SftConfig(steps=2, batch_size=2, learning_rate=3e-3)


def trained(folder: Path, stages: int, **student: Any) -> Workspace:
    """A workspace with `stages` students in a line, each fine-tuned a little on the same episodes."""
    workspace = opened(folder, student=student)
    tasks = workspace.suite.tasks(Split.TRAIN, 0, 4)
    run_and_record(workspace, tasks, workspace.acting(), arm=DEMONSTRATIONS, cycle=1, report=QUIET)
    at = workspace.base_student()
    for index in range(stages):
        at = train_stage(workspace, 1, index, STAGE, at, QUIET)
    return workspace


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """Two students in a line, each trained with an adapter."""
    workspace = trained(tmp_path_factory.mktemp("adapted"), 2, method="lora", lora_rank=4, lora_alpha=8)
    yield workspace
    workspace.close()


# -- what is noted --------------------------------------------------------------------------------


def test_everything_that_a_student_was_made_from_is_noted(adapted: Workspace, tmp_path: Path) -> None:
    base, first, second = adapted.record.students()
    folder = adapted.folder / first.weights
    assert {"model.safetensors", "tokenizer.json", "config.json"} < set(first.files)
    assert set(first.files) == {path.name for path in folder.iterdir() if path.is_file()}
    assert not any(path.stat().st_mode & 0o222 for path in folder.rglob("*") if path.is_file()), "write-protected"
    assert first.base == second.base == "tiny"
    assert first.base_content == second.base_content == address(content.digests(weights.ensure("tiny")))
    assert (first.trained_as["method"], first.trained_as["lora_rank"]) == ("lora", 4)
    assert first.seed == adapted.config.seed + 1000
    assert first.data == second.data == lineage.data_digest(map(adapted.record.trajectory, first.trajectories))
    assert len({base.content, first.content, second.content}) == 3
    again = trained(tmp_path / "again", 1, method="lora", lora_rank=4, lora_alpha=8)
    same = again.record.student("student@1")
    again.close()
    facts = ("files", "base_content", "data", "config", "seed")
    assert [getattr(same, fact) for fact in facts] == [getattr(first, fact) for fact in facts]
    assert same.trajectories != first.trajectories, "the digests rest on what happened, not on ids"


def test_data_digest_tells_what_happened_apart(adapted: Workspace) -> None:
    one, *others = adapted.record.trajectories(arm=DEMONSTRATIONS)
    step = one.steps[0].model_copy(update={"action": "noop()"})
    changed = one.model_copy(update={"steps": (step, *one.steps[1:])})
    digest = lineage.data_digest([one, *others])
    assert digest == lineage.data_digest([*others, one])
    assert len({digest, lineage.data_digest([changed, *others]), lineage.data_digest(others)}) == 3


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: (folder / "model.safetensors").write_bytes(b"other"), "model.safetensors has changed"),
        (lambda folder: (folder / "config.json").unlink(), "config.json is missing"),
        (lambda folder: (folder / "chat_template.jinja").replace(folder / "x.jinja"), "x.jinja was added"),
    ],
)
def test_a_changed_student_is_refused_and_named(
    adapted: Workspace, tmp_path: Path, spoil: Callable[[Path], object], said: str
) -> None:
    student = adapted.record.student("student@1")
    shutil.copytree(adapted.folder / student.weights, tmp_path / student.weights)
    assert weights_of(student, tmp_path) == str(tmp_path / student.weights)
    for path in (tmp_path / student.weights).iterdir():
        path.chmod(path.stat().st_mode | 0o200)
    spoil(tmp_path / student.weights)
    with pytest.raises(RecordError, match=f"is not student@1 any more .*{said}"):
        weights_of(student, tmp_path)


def test_students_without_what_is_noted_now_stay_readable(adapted: Workspace) -> None:
    body = adapted.record.student("student@1").model_dump(mode="json")
    for name in ("files", "base", "base_content", "data", "config", "trained_as", "seed", "version", "commit"):
        body.pop(name)
    old = Student.model_validate(body)
    assert (old.content, old.seed) == ("", None)
    assert weights_of(old, adapted.folder).endswith("students/1")
    checked = versions.verify(adapted, old)
    assert (checked.state, checked.detail) == ("sound", "its tensors are; its other files were not noted")


def test_students_are_found_by_what_they_are(adapted: Workspace) -> None:
    record = adapted.record
    wanted = record.student("student@2")
    for name in ("2", "student@2", wanted.id, wanted.content, wanted.content[:8], f"sha256:{wanted.content[:20]}"):
        assert versions.find(record, name) == wanted
    for name in (wanted.content[:7], "student@9", ""):
        with pytest.raises(RecordError, match="no student"):
            versions.find(record, name)


# -- deleting -------------------------------------------------------------------------------------


def test_deleting_removes_the_weights_and_keeps_the_row(workspace: Workspace) -> None:
    record, student = workspace.record, made(workspace)
    stone = versions.delete(workspace, student, reason="too old", by="hand:kim")
    assert not (workspace.folder / student.weights).exists()
    assert (stone.by, stone.reason, stone.bytes) == ("hand:kim", "too old", len("weights 1"))
    assert record.student(student.label) == student
    assert versions.missing(workspace, student).endswith("by hand:kim")
    assert versions.verify(workspace, student).state == "deleted"
    assert versions.delete(workspace, student, reason="again", by="hand:other") == stone, "the first word stands"
    with pytest.raises(RecordError, match=r"student@1 was deleted by hand:kim \(too old\)"):
        record.promote(student.id, reason="late", evidence={})
    with pytest.raises(MissingPart, match="the weights of student@1 are not here"):
        weights_of(student, workspace.folder)
    assert made(workspace).label == "student@2", "numbers are not used twice"


def test_what_is_needed_is_not_deleted_and_the_message_says_by_what(workspace: Workspace) -> None:
    record = workspace.record
    first = made(workspace)
    second = made(workspace, first.label)
    third = made(workspace, first.label)

    def stays(student: Student, why: str) -> None:
        with pytest.raises(RecordError, match=f"{student.label} stays: .*{why}"):
            versions.delete(workspace, student, reason="", by="test")
        assert (workspace.folder / student.weights).is_dir() or student.number == 0

    stays(record.student("student@0"), "everything began with")
    stays(first, "student@2, student@3 was trained from it")
    promoted(workspace, third, "student@0")
    stays(third, "it is promoted")
    promoted(workspace, second, third.label)
    stays(third, "a rollback from student@2 goes back to it")
    rollback(workspace)
    stays(third, "it is promoted")
    assert versions.references(workspace, second) == []
    job, _ = JobStore(record).submit(JobKind.EVALUATE, {"policy": second.label}, by="test")
    stays(second, f"job {job.id} names it")
    JobStore(record).cancel(job.id, "test")
    record.put("loop", "7", {"status": "running", "config": {"stages": []}})
    record.put("stage", "7/0", {"student": second.id, "stage": "sft"})
    stays(second, "cycle 7, which made it, is unfinished")
    record.put("loop", "7", {"status": "finished", "config": {"stages": []}})
    record.put("loop", "8", {"status": "running", "config": {"stages": []}, "start": second.id})
    stays(second, "cycle 8, which began with it, is unfinished")
    record.put("loop", "8", {"status": "cancelled", "config": {"stages": []}, "start": second.id})
    job, _ = JobStore(record).submit(JobKind.EVALUATE, {"policy": "student"}, by="test")
    record.put(MEASURED, job.id, {"policy": second.label})
    stays(second, f"job {job.id} measures it")
    JobStore(record).cancel(job.id, "test")
    versions.delete(workspace, second, reason="", by="test")
    with pytest.raises(RecordError, match="student@2 was deleted"):
        promote_by_hand(workspace, second.label, "again")
    assert versions.references(workspace, first) == ["student@3 was trained from it (delete that first)"]


def test_a_teacher_and_a_served_student_stay(tmp_path: Path) -> None:
    workspace = opened(tmp_path, stages=[{"type": "distill", "teacher": "student@1"}])
    workspace.base_student()
    first, second = made(workspace), made(workspace)
    assert versions.references(workspace, first) == ["a distill stage of the configuration names it as its teacher"]
    using = InUse(tmp_path)
    using.note([second.id])
    assert versions.references(workspace, second) == [f"process {os.getpid()} serves it"]
    using.close()
    assert versions.references(workspace, second) == []
    workspace.close()


def test_a_deletion_that_was_killed_is_finished_by_the_next(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    for moment in ("rename", "rmtree"):
        student = made(workspace)
        folder = workspace.folder / student.weights

        def killed(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(Path if moment == "rename" else shutil, moment, killed)
            with pytest.raises(KeyboardInterrupt):
                versions.delete(workspace, student, reason="", by="test")
        assert versions.deletion(workspace.record, student) is not None
        versions.delete(workspace, student, reason="", by="test")
        assert list(folder.parent.iterdir()) == [], moment


def test_only_folders_of_the_workspace_are_removed(workspace: Workspace, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    base = workspace.base_student()
    for number, place in ((1, str(elsewhere)), (2, "students/../../elsewhere"), (3, "tiny")):
        student = Student(number=number, stage="sft", cycle=1, weights=place, parent=base.id)
        workspace.record.add_student(student)
        versions.delete(workspace, student, reason="", by="test")
    assert elsewhere.is_dir()


# -- comparing ------------------------------------------------------------------------------------


def episode(seed: int, student: Student, success: bool, split: Split = Split.VALIDATION) -> Trajectory:
    return Trajectory(
        task=Task(environment="toy", family="press", seed=seed, split=split),
        goal=f"g{seed}",
        system="",
        policy=f"{student.label} (tiny (random weights))",
        memory=False,
        ending=Ending.SOLVED if success else Ending.STEP_LIMIT,
    )


def test_a_comparison_pairs_what_both_have_played(workspace: Workspace) -> None:
    first = made(workspace, settings={"steps": 10}, trajectories=("a", "b"), seed=1)
    second = made(workspace, settings={"steps": 20}, trajectories=("b", "c", "d"), seed=1)
    before = [True, False, False, False, True, False]
    after = [True, True, True, False, False, True]
    for student, outcomes in ((first, [*before, True]), (second, after)):
        for seed, success in enumerate(outcomes):
            item = episode(seed, student, success)
            label = (student.label, f"{student.label} (weights that were called so then)", item.policy)[seed % 3]
            item = item.model_copy(update={"policy": label})
            workspace.record.add_trajectory(item, key=item.id, cycle=0, arm="by hand")
    other = episode(6, second, True).model_copy(update={"policy": f"{second.label}0"})  # which is not the second
    workspace.record.add_trajectory(other, key=other.id, cycle=0, arm="by hand")
    again = episode(3, second, True)  # a second try does not count
    workspace.record.add_trajectory(again, key=again.id, cycle=0, arm="by hand")
    found = compare(workspace, first, second)
    (pair,) = found.paired
    expected = stats.compare(before, after, confidence=workspace.config.evaluate.confidence, seed=workspace.config.seed)
    assert pair.comparison == expected
    assert (pair.split, pair.memory, pair.old.rate.successes, pair.new.rate.successes) == (
        Split.VALIDATION,
        False,
        2,
        4,
    )
    assert found.settings == {"sft.steps": (10, 20)}
    assert (found.trajectories.both, found.trajectories.only_old, found.trajectories.only_new) == (1, 1, 2)
    assert not found.same_weights
    assert compare(workspace, first, first).same_weights


def test_students_that_share_no_task_can_play(adapted: Workspace) -> None:
    first, second = adapted.record.student("student@1"), adapted.record.student("student@2")
    assert compare(adapted, first, second).paired == ()
    for _ in range(2):  # what was played is not played again
        play(adapted, (first, second), Split.VALIDATION, 3, QUIET)
        (pair,) = compare(adapted, first, second).paired
        assert (pair.comparison.pairs, len(adapted.record.trajectories(split=Split.VALIDATION))) == (3, 6)


# -- exporting ------------------------------------------------------------------------------------


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        result: torch.Tensor = model.eval()(torch.arange(5, 60)[None]).logits
    return result


def test_a_merged_export_is_the_student(adapted: Workspace, tmp_path: Path) -> None:
    student = adapted.record.student("student@2")
    exporting.export(adapted, student, tmp_path / "out", "merged")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="float32")
    assert torch.equal(logits(loaded), logits(weights.load(weights_of(student, adapted.folder))[0]))
    assert weights.load_tokenizer(str(tmp_path / "out")).encode("press b1") != []
    card = (tmp_path / "out" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers\n")
    for said in ("student@1", f"`{student.content[:16]}`", "| toy/press | expert/toy (scripted) | 4 |", "not measured"):
        assert said in card
    assert str(adapted.folder) not in card
    with pytest.raises(TutelageError, match="exists"):
        exporting.export(adapted, student, tmp_path / "out", "merged")


def test_a_card_says_nothing_of_this_machine(tmp_path: Path) -> None:
    base = tmp_path / "kept here" / "smollm2"
    base.mkdir(parents=True)
    workspace = opened(tmp_path / "w", student={"weights": str(base)})
    first = Student(number=0, stage="base", cycle=0, weights=str(base))
    workspace.record.add_student(first)
    item = episode(1, first, True, Split.TRAIN).model_copy(update={"policy": f"{first.label} ({base})"})
    workspace.record.add_trajectory(item, key="1", cycle=1, arm=DEMONSTRATIONS)
    student = made(workspace, base=str(base), trajectories=(item.id,))
    base.rmdir()
    (workspace.folder / "README.md").write_text("license: wrong\n")
    exporting.export(workspace, student, tmp_path / "out", "merged")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "made of smollm2." in card
    assert "| student@0 (smollm2) | 1 |" in card
    assert "license: unknown" in card
    for secret in ("kept here", str(tmp_path), "base_model", "wrong"):
        assert secret not in card
    workspace.close()


def test_an_adapter_export_holds_all_stages_of_the_line(adapted: Workspace, tmp_path: Path) -> None:
    student = adapted.record.student("student@2")
    done = exporting.export(adapted, student, tmp_path / "out", "adapter")
    base = weights.load("tiny")[0]
    wanted, far = logits(weights.load(weights_of(student, adapted.folder))[0]), logits(base)
    with_adapter = logits(PeftModel.from_pretrained(base, str(tmp_path / "out")))
    assert done.rank <= 8, "two stages of rank 4"
    moved = (wanted - far).abs().max()
    assert moved > 1e-2
    assert (with_adapter - wanted).abs().max() < moved * 1e-3
    assert done.error < moved * 1e-3
    assert f"rank {done.rank}" in (tmp_path / "out" / "README.md").read_text()
    assert json.loads((tmp_path / "out" / "adapter_config.json").read_text())["base_model_name_or_path"] == "tiny"
    assert not list(tmp_path.glob(".out*"))


def test_what_was_trained_in_full_has_no_adapter(tmp_path: Path) -> None:
    workspace = trained(tmp_path / "w", 1)
    with pytest.raises(ConfigError, match="was trained in full"):
        exporting.export(workspace, workspace.record.student("student@1"), tmp_path / "out", "adapter")
    with pytest.raises(ConfigError, match="student@0 is the base itself"):
        exporting.export(workspace, workspace.base_student(), tmp_path / "out", "adapter")
    assert [path.name for path in tmp_path.iterdir()] == ["w"], "nothing is left"
    workspace.close()
