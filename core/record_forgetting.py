"""Forgetting: the one thing that takes something out of a record. The payload goes, a tombstone stays.

Erased is what this workspace's own files hold. Weights that were trained on it, backups, exports, cassettes and what a
provider was sent are out of reach; the tombstone says which students, experiences and episodes to look at.
"""

import json
from collections.abc import Callable, Collection, Iterable
from typing import Any, Literal, TypeVar

from sqlalchemy import ColumnElement, Connection, Table, delete, insert, or_, select, update

from tutelage.absorption import MEASUREMENT, RECONCILED
from tutelage.corrections import CORRECTION
from tutelage.database import where
from tutelage.errors import RecordError
from tutelage.experience import Experience, identity
from tutelage.record_experiences import Experiences, Tombstone
from tutelage.record_tables import (
    DOCUMENTS,
    EXPERIENCE_SOURCES,
    EXPERIENCES,
    STUDENTS,
    TOMBSTONES,
    TRAJECTORIES,
    USES,
    VERDICTS,
)
from tutelage.types import Step, Trajectory, Verdict, now

FORGOTTEN = "forgotten"
"""Arm of a forgotten trajectory: it feeds nothing any more, and still counts in the evaluations that it was part of."""
DISTILLED = "distilled"
"""Kind of the documents that keep what each trajectory gave."""
FEEDBACK = "feedback"
"""Kind of the documents that keep what followed on each turn of a served conversation, by its id."""
REBUILT = ("report.html",)
"""Files beside the record that quote it and can be made again; they are removed."""
PROSE = {MEASUREMENT: {"reason"}, RECONCILED: {"reason"}, "contradiction": {"reason"}, DISTILLED: {"detail"}}
"""By kind of document, the fields that hold somebody's words; what the others of it hold is read by programs and stays.
Of other kinds every string may be words."""
SHORT = 8
"""Texts shorter than this say nothing by themselves and are not looked for in other documents."""

T = TypeVar("T")


class Forgetting(Experiences):
    """Forgetting is one transaction; then the database is rewritten, so that no freed page keeps the text."""

    def forget_experience(self, experience_id: str, reason: str, by: str) -> Tombstone:
        """Erase an experience: all versions, and its text wherever the record quotes it.

        Episodes that showed it keep everything but its text (and their tokens, which spell that text); what its
        source trajectories say is theirs and stays (`forget_trajectory`).

        Returns:
            Its tombstone; the first one, and nothing changes, if it was forgotten before.

        Raises:
            RecordError: there is no such experience.
        """
        with self.transaction() as connection:
            if (stone := self.tombstone(experience_id)) is not None:
                return stone
            history = self.history(experience_id)
            if not history:
                raise RecordError(f"{self.name} has no experience {experience_id!r}")
            merged = (other for item in history for other in item.merged)
            kin = _unique([*self._naming(EXPERIENCES, experience_id), *merged])
            derived = {
                "students": self._students(lambda body: experience_id in body["experiences"]),
                "experiences": [item for item in kin if item != experience_id],
                "trajectories": self._naming(TRAJECTORIES, experience_id),
            }
            texts = _texts(history)
            for trajectory in derived["trajectories"]:
                self._unshow(connection, trajectory, experience_id, texts)
            self._erase_drafts(connection, history)
            keyed = DOCUMENTS.c.key.contains(experience_id, autoescape=True)
            quoting = or_(keyed, _names(DOCUMENTS, experience_id))
            for row in self._rows(select(*DOCUMENTS.c["n", "kind", "body"]).where(quoting)):
                body = _without(json.loads(row.body), texts, PROSE.get(row.kind))
                _rewrite(connection, DOCUMENTS, row.n, body)
            for n, body in self._bodies(EXPERIENCES, _names(EXPERIENCES, experience_id)):
                body["change"] = _without(body.get("change", {}), texts, {"reason"})
                _rewrite(connection, EXPERIENCES, n, body)
            mine = EXPERIENCE_SOURCES.c.experience_id == experience_id
            connection.execute(delete(EXPERIENCE_SOURCES).where(mine))
            connection.execute(delete(USES).where(USES.c.experience == experience_id))
            connection.execute(delete(EXPERIENCES).where(EXPERIENCES.c.id == experience_id))
            return self._bury(connection, "experience", experience_id, history[-1].tenant, reason, by, derived)

    def forget_trajectory(self, trajectory_id: str, reason: str, by: str) -> Tombstone:
        """Erase what happened in an episode; its task, who played, ending and reward stay, so that rates stay true.

        With it go the reasons of its verdicts, its corrections, the drafts made of it, and the design and hint of its
        task if nobody else played that.

        Returns:
            Its tombstone; the first one, and nothing changes, if it was forgotten before.

        Raises:
            RecordError: there is no such trajectory.
        """
        with self.transaction() as connection:
            if (stone := self.tombstone(trajectory_id)) is not None:
                return stone
            item = self._trajectory(trajectory_id)
            drawn = select(EXPERIENCE_SOURCES.c.experience_id).where(EXPERIENCE_SOURCES.c.trajectory == trajectory_id)
            derived = {
                "students": self._students(lambda body: trajectory_id in body["trajectories"]),
                "experiences": _unique(row.experience_id for row in self._rows(drawn)),
                "trajectories": [],
            }
            nothing = {"goal": "", "system": "", "tools": (), "shown": (), "steps": (), "error": ""}
            shell = item.model_copy(update=nothing).model_dump_json()
            here = TRAJECTORIES.c.id == trajectory_id
            connection.execute(update(TRAJECTORIES).where(here).values(body=shell, arm=FORGOTTEN))
            for n, body in self._bodies(VERDICTS, VERDICTS.c.trajectory == trajectory_id):
                _rewrite(connection, VERDICTS, n, Verdict.model_validate({**body, "reason": ""}))
            key, kind = DOCUMENTS.c.key, DOCUMENTS.c.kind
            corrections = (kind == CORRECTION) & key.startswith(f"{trajectory_id}/", autoescape=True)
            gone = or_(corrections, kind.in_((DISTILLED, FEEDBACK)) & (key == trajectory_id))
            connection.execute(delete(DOCUMENTS).where(gone))
            self._erase_design(connection, item)
            return self._bury(connection, "trajectory", trajectory_id, item.tenant, reason, by, derived)

    # -- inside ---------------------------------------------------------------------------------

    def _bury(
        self,
        connection: Connection,
        kind: Literal["experience", "trajectory"],
        forgotten: str,
        tenant: str,
        reason: str,
        by: str,
        derived: dict[str, list[str]],
    ) -> Tombstone:
        values = {"kind": kind, "id": forgotten, "tenant": tenant, "reason": reason, "by": by, "created": now()}
        connection.execute(insert(TOMBSTONES).values({**values, "derived": json.dumps(derived)}))
        self._scrub_later(connection)
        if self.folder is not None:
            for name in REBUILT:
                (self.folder / name).unlink(missing_ok=True)
        stone = self.tombstone(forgotten)
        assert stone is not None, "the tombstone was just written"
        return stone

    def _students(self, made_with: Callable[[dict[str, Any]], bool]) -> list[str]:
        """Ids of students that were trained with something, and of all their descendants, by number."""
        found: list[str] = []
        for row in self._rows(select(STUDENTS.c.body).order_by(STUDENTS.c.number)):
            body = json.loads(row.body)
            if made_with(body) or body["parent"] in found:
                found.append(body["id"])
        return found

    def _naming(self, table: Table, name: str) -> list[str]:
        query = select(table.c.id).where(_names(table, name)).order_by(table.c.n)
        return _unique(row.id for row in self._rows(query))

    def _bodies(self, table: Table, wanted: ColumnElement[bool]) -> list[tuple[int, dict[str, Any]]]:
        return [(row.n, json.loads(row.body)) for row in self._rows(select(table.c.n, table.c.body).where(wanted))]

    def _trajectory(self, trajectory_id: str) -> Trajectory:
        rows = self._rows(select(TRAJECTORIES.c.body).where(TRAJECTORIES.c.id == trajectory_id))
        return Trajectory.model_validate_json(self._one(rows, "trajectory", trajectory_id).body)

    def _unshow(self, connection: Connection, trajectory_id: str, experience_id: str, texts: set[str]) -> None:
        """Erase the experience's text from an episode: where it was shown, where it forbade, where it is quoted."""
        item = self._trajectory(trajectory_id)
        mine = [shown.text for shown in item.shown if shown.id == experience_id]
        mine += [step.diagnosis.evidence for step in item.steps if step.blocked_by == experience_id]
        quoted = {*mine, *(" ".join(text.split()) for text in mine)} - {""}
        # The first message's tokens spell what was shown; without them no token of a later turn can be placed either.
        steps = tuple(_unquoted(step, quoted, texts) for step in item.steps)
        shown = tuple(entry.model_copy(update={"text": _cut(entry.text, quoted)}) for entry in item.shown)
        changed = item.model_copy(update={"shown": shown, "steps": steps})
        here = TRAJECTORIES.c.id == trajectory_id
        connection.execute(update(TRAJECTORIES).where(here).values(body=changed.model_dump_json()))

    def _erase_drafts(self, connection: Connection, history: list[Experience]) -> None:
        """Take it out of what was distilled from its sources, so that no later step admits it again."""
        ids, digests = {history[0].id}, {identity(item) for item in history}
        sources = {source.trajectory for item in history for source in item.sources}
        for n, body in self._bodies(DOCUMENTS, DOCUMENTS.c.kind == DISTILLED):
            drafts = [Experience.model_validate(draft) for draft in body["experiences"]]
            kept = [draft for draft in drafts if draft.id not in ids and identity(draft) not in digests]
            if len(kept) == len(drafts) and body["trajectory"] not in sources:
                continue
            body["experiences"] = [draft.model_dump(mode="json") for draft in kept]
            # A rejected draft of the same trajectory may be an earlier wording of it; its reason is what is counted.
            body["rejections"] = [{**rejection, "detail": ""} for rejection in body["rejections"]]
            _rewrite(connection, DOCUMENTS, n, body)

    def _erase_design(self, connection: Connection, item: Trajectory) -> None:
        same = where(TRAJECTORIES, environment=item.task.environment, family=item.task.family, seed=item.task.seed)
        others = self._rows(select(TRAJECTORIES.c.n).where(*same, TRAJECTORIES.c.arm != FORGOTTEN))
        if others:
            return
        here = DOCUMENTS.c.key == item.task.id
        connection.execute(delete(DOCUMENTS).where(here, DOCUMENTS.c.kind == "hint"))
        for n, body in self._bodies(DOCUMENTS, here & (DOCUMENTS.c.kind == "design")):
            body["design"] |= {"goal": FORGOTTEN, "end": None, "template": "", "values": {}}
            _rewrite(connection, DOCUMENTS, n, body)
        for n, body in self._bodies(DOCUMENTS, here & (DOCUMENTS.c.kind == "proposals")):
            body["lost"] = [[reason, ""] for reason, _ in body["lost"]]
            _rewrite(connection, DOCUMENTS, n, body)


def _names(table: Table, name: str) -> ColumnElement[bool]:
    """Rows whose body names this id; none of the others can quote it knowingly.

    Documents escape what is not ASCII, experiences and trajectories do not.
    """
    spellings = {json.dumps(name), json.dumps(name, ensure_ascii=False)}
    return or_(*(table.c.body.contains(spelling, autoescape=True) for spelling in spellings))


def _rewrite(connection: Connection, table: Table, n: int, body: Any) -> None:
    text = json.dumps(body, sort_keys=table is DOCUMENTS) if isinstance(body, dict) else body.model_dump_json()
    connection.execute(update(table).where(table.c.n == n).values(body=text))


def _texts(history: Iterable[Experience]) -> set[str]:
    """Everything that an experience says in words of its own."""
    found: set[str] = set()
    for item in history:
        fields = item.content.model_dump(exclude={"kind"})
        for value in (item.goal, item.core, item.verbatim, *fields.values()):
            found.update([value] if isinstance(value, str) else value)
    return {text for text in found if len(text) >= SHORT}


def _unquoted(step: Step, quoted: set[str], texts: set[str]) -> Step:
    """The step without the quotations; `texts` are looked for only in what a program said to the agent."""
    diagnosis = step.diagnosis.model_copy(update={"evidence": _cut(step.diagnosis.evidence, quoted)})
    changes: dict[str, Any] = {name: _cut(getattr(step, name), quoted) for name in ("reply", "thought", "action")}
    notes = tuple(_cut(note, quoted | texts) for note in step.notes)
    return step.model_copy(update={**changes, "notes": notes, "diagnosis": diagnosis, "tokens": None})


def _cut(text: str, quoted: Iterable[str]) -> str:
    for quotation in sorted(quoted, key=len, reverse=True):
        text = text.replace(quotation, "")
    return text


def _without(value: Any, texts: set[str], prose: Collection[str] | None = None) -> Any:
    """The same JSON with these texts cut out of its strings; with `prose`, only out of fields with these names."""
    if isinstance(value, str):
        return value if prose is not None else _cut(value, texts)
    if isinstance(value, dict):
        every = {name: None if prose is None or name in prose else prose for name in value}
        return {name: _without(item, texts, every[name]) for name, item in value.items()}
    return [_without(item, texts, prose) for item in value] if isinstance(value, list) else value


def _unique(items: Iterable[T]) -> list[T]:
    return list(dict.fromkeys(items))
