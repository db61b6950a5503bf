"""What is forgotten is in no file any more, what was made from it is named, and everything else still counts."""

import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tutelage.agents.distiller import Distilled, Rejection
from tutelage.config import EvidenceConfig
from tutelage.corrections import Correction, keep
from tutelage.database import UNSCRUBBED
from tutelage.designs import Design
from tutelage.effects import Pair, effect
from tutelage.errors import RecordError
from tutelage.experience import Change, Experience, Guardrail, Skill, Source
from tutelage.measures import Measurement, Move, Student
from tutelage.record import Record
from tutelage.record_experiences import Uses
from tutelage.types import Cause, Diagnosis, Ending, Shown, Split, Step, Task, Tokens, Trajectory, Verdict

PLANTED = "Xyzzy-payload"


@pytest.fixture
def record(tmp_path: Path) -> Iterator[Record]:
    record = Record.open(tmp_path)
    yield record
    record.close()


def found_in(folder: Path, text: str = PLANTED) -> list[str]:
    return [str(path) for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


def a_step(
    observation: str = "o", evidence: str = "", blocked_by: str | None = None, notes: tuple[str, ...] = ()
) -> Step:
    cause = Cause.BLOCKED if blocked_by else Cause.PROGRESS
    return Step(
        observation=observation,
        notes=notes,
        reply="Think.\nclick(1)",
        thought="Think.",
        action="click(1)",
        diagnosis=Diagnosis(cause=cause, evidence=evidence),
        after="p",
        blocked_by=blocked_by,
        tokens=Tokens(prompt=(1, 2), sampled=(3,), logprobs=(-0.1,)),
    )


def play(record: Record, seed: int, *steps: Step, shown: tuple[Shown, ...] = (), goal: str = "g") -> Trajectory:
    task = Task(environment="toy", family="designed", seed=seed, split=Split.TRAIN)
    values: dict[str, Any] = {"system": "s", "policy": "p", "memory": True, "ending": Ending.SOLVED, "reward": 1.0}
    item = Trajectory(task=task, goal=goal, shown=shown, steps=steps, **values)
    record.add_trajectory(item, key=f"k/{seed}", cycle=1, arm="demonstrations")
    return item


def an_experience(source: Trajectory, name: str, content: Skill | Guardrail, **changes: Any) -> Experience:
    sources = (Source(trajectory=source.id, task=source.task.id, steps=(0,)),)
    values = {"environment": "toy", "family": "designed", "goal": "g", "sources": sources, "author": "rules"}
    return Experience.model_validate({**values, "id": f"exp_{name}", "content": content, **changes})


def a_skill(text: str) -> Skill:
    return Skill(preconditions=(f"The page says {text}.",), procedure=(f"click({text!r})",), verification=())


def students(record: Record, **made_with: tuple[str, ...]) -> list[Student]:
    """Base, one trained so, its child, and one that has nothing to do with it."""
    base = Student(number=0, stage="base", cycle=0, weights="tiny")
    made = Student(number=1, stage="sft", cycle=1, weights="students/1", parent=base.id, **made_with)
    child = Student(number=2, stage="sft", cycle=1, weights="students/2", parent=made.id)
    other = Student(number=3, stage="sft", cycle=1, weights="students/3", parent=base.id)
    for student in (base, made, child, other):
        record.add_student(student)
    return [made, child]


def test_a_forgotten_experience_is_in_no_file_and_leaves_a_tombstone(record: Record, tmp_path: Path) -> None:
    source = play(record, 0, a_step("a page"))
    skill = an_experience(source, "skill", a_skill(PLANTED), verbatim=PLANTED)
    other = an_experience(source, "other", a_skill("another thing"))
    again = skill.model_copy(update={"version": 2, "core": f"Look for {PLANTED}."})
    for item in (skill, again, other):
        record.save_experience(item)
    reason = f"says the same as {PLANTED!r}"
    change = Change(by="merging", reason=reason, numbers={"winner": skill.id})
    record.save_experience(other.model_copy(update={"version": 2, "merged": (skill.id,), "change": change}))
    line = f"When the page says {PLANTED}."
    showing = (Shown(id=skill.id, version=1, text=line), Shown(id=other.id, version=1, text="another"))
    quoting = a_step().model_copy(update={"reply": f"As I was told: {line}\nclick(1)"})
    shown = play(record, 1, quoting, shown=showing)
    bystander = play(record, 2, a_step())
    twin = skill.model_copy(update={"id": "exp_twin"})
    lost = Rejection(trajectory=source.id, kind="skill", reason="unfounded", detail=f"fill({PLANTED})")
    made = Distilled(trajectory=source.id, experiences=(twin, other), rejections=(lost,))
    record.put("distilled", source.id, made.model_dump(mode="json"))
    record.put("contradiction", f"{skill.id}/{other.id}", {"first": skill.id, "reason": f"say {PLANTED} now"})
    record.put("evidence", "1", {"item": skill.id, "text": f"Look for {PLANTED}.", "gain": 0.5})
    trained = students(record, experiences=(skill.id,))
    (tmp_path / "report.html").write_text(line)

    stone = record.forget_experience(skill.id, "asked for", "hand:ada")

    assert found_in(tmp_path) == []
    assert (stone.kind, stone.id, stone.reason, stone.by) == ("experience", skill.id, "asked for", "hand:ada")
    assert stone.derived == {
        "students": [item.id for item in trained],
        "experiences": [other.id],
        "trajectories": [shown.id],
    }
    assert record.tombstones() == [stone] == record.tombstones(after=stone.n - 1)
    assert record.tombstones(after=stone.n) == []
    assert record.forget_experience(skill.id, "again", "hand:bob") == stone
    with pytest.raises(RecordError, match=rf"{skill.id} was forgotten on \d{{4}}-\d\d-\d\d: asked for"):
        record.experience(skill.id)
    with pytest.raises(RecordError, match="was forgotten on"):
        record.save_experience(skill)
    assert record.history(skill.id) == []
    assert [item.id for item in record.experiences()] == [other.id]
    assert record.uses() == {other.id: Uses(1, 1, 1)}
    after = record.trajectory(shown.id)
    assert [item.text for item in after.shown] == ["", "another"]
    assert after.steps[0].reply == "As I was told: \nclick(1)"
    assert after.steps[0].tokens is None
    assert record.trajectory(bystander.id) == bystander
    assert record.trajectory(source.id) == source
    left = Distilled.model_validate(record.get("distilled", source.id))
    assert (left.experiences, [item.reason for item in left.rejections]) == ((other,), ["unfounded"])
    assert record.get("evidence", "1") == {"item": skill.id, "text": "", "gain": 0.5}
    assert record.items("contradiction") == {f"{skill.id}/{other.id}": {"first": skill.id, "reason": "say  now"}}
    assert record.experience(other.id).merged == (skill.id,)


@pytest.mark.parametrize("word", ["undecided", "candidate", "unfounded", "toy/designed", "evidence"])
def test_forgetting_common_words_leaves_documents_what_they_are(record: Record, word: str) -> None:
    """A skill may say just what a finding, a status, a place or a maker is called."""
    source = play(record, 0, a_step())
    item = an_experience(source, "a", Skill(preconditions=(), procedure=(word,), verification=()))
    change = Change(by="evidence", reason=f"beats {word}", numbers={"contradicts": item.id, "of": word})
    other = an_experience(source, "b", a_skill("another thing"), change=change)
    for each in (item, other):
        record.save_experience(each)
    found = effect("toy/designed", [Pair(True, True, frozenset({item.id}))], EvidenceConfig(), experience=item.id)
    values = {"experience": item.id, "kind": "skill", "family": "toy/designed", "before": "candidate"}
    move = Move.model_validate({**values, "after": "retired", "reason": f"{word} does harm"})
    planned = {"cycle": 1, "place": 0, "student": "s", "pairs": 1, "item_pairs": 0}
    plan = {"families": {"toy/designed": [item.id]}, "effects": [found], "moves": [move], **planned}
    before = Measurement.model_validate({"name": "evidence", "finished": True, **plan})
    record.put("measurement", "evidence", before.model_dump(mode="json"))
    lost = Rejection(trajectory=source.id, kind="skill", reason="unfounded", detail=f"not {word}")
    made = Distilled(trajectory=source.id, experiences=(item, other), rejections=(lost,))
    record.put("distilled", source.id, made.model_dump(mode="json"))

    record.forget_experience(item.id, "r", "hand:ada")

    blank = move.model_copy(update={"reason": " does harm"})
    after = Measurement.model_validate(record.get("measurement", "evidence"))
    assert after == before.model_copy(update={"moves": (blank,)})
    left = Distilled.model_validate(record.get("distilled", source.id))
    assert (left.experiences, left.rejections[0].reason) == ((other,), "unfounded")
    assert record.experience(other.id).change == change.model_copy(update={"reason": "beats "})


def test_an_id_in_any_script_is_found(record: Record, tmp_path: Path) -> None:
    source = play(record, 0, a_step())
    item = an_experience(source, "ünï-名", a_skill(PLANTED), verbatim=PLANTED)
    record.save_experience(item)
    record.put("contradiction", "a b", {"first": item.id, "reason": f"Look for {PLANTED}"})
    shown = play(record, 1, a_step(), shown=(Shown(id=item.id, version=1, text=PLANTED),))
    assert record.forget_experience(item.id, "r", "b").derived["trajectories"] == [shown.id]
    assert found_in(tmp_path) == []


def test_a_forgotten_guardrail_is_not_in_what_it_stopped(record: Record, tmp_path: Path) -> None:
    source = play(record, 0, a_step())
    rule = Guardrail(trigger=("button 'OK'",), root_cause=f"{PLANTED} is wrong.", forbidden="click(*)", remedy="Wait.")
    record.save_experience(an_experience(source, "rule", rule))
    evidence = f"Blocked: {rule.root_cause}  {rule.remedy}"
    told = f"2 steps in a row failed, the last one click(1): Blocked: {rule.root_cause} {rule.remedy}"
    stopped = play(record, 1, a_step(evidence=evidence, blocked_by="exp_rule"), a_step(notes=(told,)))
    assert record.forget_experience("exp_rule", "r", "hand:ada").derived["trajectories"] == [stopped.id]
    assert found_in(tmp_path) == []
    steps = record.trajectory(stopped.id).steps
    assert (steps[0].blocked_by, steps[0].diagnosis.cause) == ("exp_rule", Cause.BLOCKED)
    assert steps[1].notes == ("2 steps in a row failed, the last one click(1): ",)


def test_a_forgotten_trajectory_keeps_what_evaluations_count(record: Record, tmp_path: Path) -> None:
    item = play(record, 0, a_step(f"page {PLANTED}"), goal=f"find {PLANTED}")
    kept = play(record, 1, a_step("page"))
    drawn = an_experience(item, "drawn", a_skill("a thing"))
    record.save_experience(drawn)
    record.save_experience(an_experience(kept, "else", a_skill("a third thing")))
    for judged in (item, kept):
        record.add_verdict(Verdict(trajectory=judged.id, judge="j", successful=True, reason=f"saw {PLANTED}"))
        body = Distilled(trajectory=judged.id, experiences=(), rejections=())
        record.put("distilled", judged.id, body.model_dump(mode="json"))
        fixed = Correction(trajectory=judged.id, step=0, reply=f"fill({PLANTED})", author="t")
        keep(record, fixed, arm="sdpo", cycle=1)
    design = Design(task=item.task, base=kept.task, goal=item.goal, values={"thing": PLANTED}, end={"is": PLANTED})
    record.put("design", item.task.id, {"design": design.model_dump(mode="json"), "run": "r"})
    record.put("hint", item.task.id, {"text": f"look for {PLANTED}"})
    trained = students(record, trajectories=(item.id,))

    stone = record.forget_trajectory(item.id, "private", "hand:ada")

    assert stone.derived == {
        "students": [student.id for student in trained],
        "experiences": [drawn.id],
        "trajectories": [],
    }
    assert found_in(tmp_path, "saw " + PLANTED) != [], "what the other one's verdict says is not this one's"
    assert found_in(tmp_path, f"page {PLANTED}") == found_in(tmp_path, f"find {PLANTED}") == []
    assert found_in(tmp_path, f"look for {PLANTED}") == []
    shell = record.trajectory(item.id)
    assert (shell.task, shell.ending, shell.reward, shell.policy) == (item.task, item.ending, 1.0, "p")
    assert (shell.goal, shell.steps, record.has_key("k/0")) == ("", (), True)
    assert record.trajectories(arm="demonstrations") == [kept]
    assert record.trajectories(success=True) == [shell, kept]
    verdict = record.verdict(item.id)
    assert verdict is not None
    assert (verdict.successful, verdict.reason) == (True, "")
    assert list(record.items("distilled")) == [kept.id]
    assert list(record.items("correction")) == [f"{kept.id}/0"]
    assert record.items("hint") == {}
    Design.model_validate(record.items("design")[item.task.id]["design"])
    with pytest.raises(RecordError, match="no trajectory 'trj_none'"):
        record.forget_trajectory("trj_none", "r", "b")


def test_numbers_of_forgotten_rows_are_not_used_again(record: Record) -> None:
    source = play(record, 0, a_step())
    for name in "ab":
        record.save_experience(an_experience(source, name, a_skill(f"thing {name}")))
    record.forget_experience("exp_b", "r", "b")
    assert record.newest() == (1, 1)
    record.save_experience(an_experience(source, "c", a_skill("thing c")))
    assert record.newest() == (3, 1)
    assert [row.id for row in record.experience_rows(after=2)] == ["exp_c"]


def test_erasing_that_somebody_is_in_the_way_of_is_finished_at_the_next_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tutelage.database.SCRUB_SECONDS", 0.1)
    record = Record.open(tmp_path)
    source = play(record, 0, a_step())
    record.save_experience(an_experience(source, "a", a_skill(PLANTED)))
    reader = sqlite3.connect(tmp_path / "record.db", isolation_level=None)
    reader.execute("BEGIN")
    assert reader.execute("SELECT count(*) FROM experiences").fetchone() == (1,)
    record.forget_experience("exp_a", "r", "b")
    record.close()
    assert found_in(tmp_path) != [], "the reader still sees it"
    marked = "SELECT count(*) FROM meta WHERE key = ?"
    with sqlite3.connect(tmp_path / "record.db") as other:
        assert other.execute(marked, (UNSCRUBBED,)).fetchone() == (1,)
    reader.close()
    Record.open(tmp_path).close()
    assert found_in(tmp_path) == []


def test_forgetting_inside_a_transaction_that_fails_changes_nothing(record: Record, tmp_path: Path) -> None:
    source = play(record, 0, a_step())
    item = an_experience(source, "a", a_skill(PLANTED))
    record.save_experience(item)
    before = json.dumps(record.fingerprint())

    def fail_late() -> None:
        with record.transaction():
            record.forget_experience(item.id, "r", "b")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_late()
    assert record.experience(item.id) == item
    assert json.dumps(record.fingerprint()) == before


FORGETS = """
import os, signal, sys
from pathlib import Path
from sqlalchemy import Engine, event
from tutelage.database import Database
from tutelage.record import Record

left = int(sys.argv[2])
compact = Database._compact

def count(*_):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

def counted(record):
    count()
    done = compact(record)
    count()
    return done

record = Record.open(Path(sys.argv[1]))
event.listen(Engine, "before_cursor_execute", count)
event.listen(Engine, "commit", count)
Database._compact = counted
record.forget_experience("exp_a", "r", "hand:ada")
print(left)
"""


def test_killed_while_it_forgets_it_has_done_so_or_not_at_all(tmp_path: Path, full_counts: bool) -> None:
    folder = tmp_path / "whole"
    record = Record.open(folder)
    source = play(record, 0, a_step())
    record.save_experience(an_experience(source, "a", a_skill(PLANTED)))
    play(record, 1, a_step(), shown=(Shown(id="exp_a", version=1, text=f"Know {PLANTED}."),))
    record.close()
    data = (folder / "record.db").read_bytes()
    outcomes = []
    command = [sys.executable, "-c", FORGETS, str(folder)]
    total = 1000 - int(subprocess.run([*command, "1000"], capture_output=True, text=True, check=True).stdout)
    for number in range(total, 0, -1 if full_counts else -(total // 4)):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "record.db").write_bytes(data)
        command[-1] = str(tmp_path / str(number))
        assert subprocess.run([*command, str(number)], capture_output=True).returncode == -signal.SIGKILL
        record = Record.open(tmp_path / str(number))
        forgotten = record.tombstone("exp_a") is not None
        shown = record.trajectories()[1].shown[0].text
        assert (record.history("exp_a") == [], shown == "", record.uses() == {}) == (forgotten,) * 3
        record.close()
        assert (found_in(tmp_path / str(number)) == []) == forgotten
        outcomes.append(forgotten)
    assert outcomes[0], "killed after everything was done"
    assert not outcomes[-1], "killed before anything was done"
    assert outcomes == sorted(outcomes, reverse=True)
