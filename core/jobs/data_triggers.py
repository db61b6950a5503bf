"""What the record says to the triggers that wait for data. Of episodes only those since it last fired are looked at.

Success and drift are judged by what the promoted student did in use: episodes of the arms that experience is gathered
from, those that broke left out. Episodes that only measure, and those of training, are not among them.

Served conversations count where their callers are trusted: others could make jobs begin by thanking the student.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Executable, Row, and_, func, or_, select

from tutelage.config import TrustConfig
from tutelage.cycle import EXPERIENCE_ARMS
from tutelage.database import where
from tutelage.designs import DESIGNED
from tutelage.experience import IN_USE
from tutelage.jobs.triggers import Found, Kept
from tutelage.memory.trust import of_origin
from tutelage.record import Record
from tutelage.record_tables import EXPERIENCES, TRAJECTORIES, played_by
from tutelage.service_config import TriggerConfig
from tutelage.stats import rate
from tutelage.types import BROKEN, OWN, Split

Rows = tuple[ColumnElement[bool], ...]
"""What holds of the rows that are looked at."""
BASE = "student@0"
"""Label of the student in use while none was promoted."""


def mark(record: Record, trigger: TriggerConfig) -> int:
    """Row up to which the record has what a trigger waits for."""
    return record.newest().experience if trigger.memory_over else _newest(record)


def look(record: Record, trigger: TriggerConfig, kept: Kept, trust: TrustConfig | None = None) -> Found:
    """Whether the data are as a trigger waits for, and how far from it.

    Args:
        trust: whose served conversations count; default: as it is where nothing is configured.
    """
    with record.reading():
        if trigger.memory_over:
            return _memory(record, trigger, kept)
        gathered = _gathered(record, kept, trust or TrustConfig())
        if trigger.accepted:
            return _accepted(record, trigger, gathered)
        if trigger.success_below:
            return _success(record, trigger, gathered)
        return _drift(record, trigger, gathered)


def distance(old: Mapping[str, int], new: Mapping[str, int]) -> float:
    """Total variation distance, 0 to 1, between two counts of the same things; 0 if one of them counts nothing."""
    totals = sum(old.values()), sum(new.values())
    if 0 in totals:
        return 0.0
    names = old.keys() | new.keys()
    return sum(abs(old.get(name, 0) / totals[0] - new.get(name, 0) / totals[1]) for name in names) / 2


def _accepted(record: Record, trigger: TriggerConfig, gathered: Rows) -> Found:
    """Counted as `tutelage.cycle.accepted_trajectories` does: of designed tasks, what their filter accepted."""
    n, trajectory, family = TRAJECTORIES.c.n, TRAJECTORIES.c.id, TRAJECTORIES.c.family
    mine = (*gathered, *where(TRAJECTORIES, split=Split.TRAIN, success=True))
    count, last = _rows(record, select(func.count(), func.max(n)).where(*mine, family != DESIGNED))[0]
    designed = _rows(record, select(n, trajectory).where(*mine, family == DESIGNED))
    if designed:
        filtered = {item for body in record.items("annotation").values() for item in body["accepted"] + body["failed"]}
        designed = [row for row in designed if row.id in filtered]
    count += len(designed)
    last = max([last or 0, *(row.n for row in designed)])
    far = f"{count} of {trigger.accepted} accepted trajectories"
    return Found(count >= trigger.accepted, far, mark=last)


def _success(record: Record, trigger: TriggerConfig, gathered: Rows) -> Found:
    rows = _episodes(record, gathered, trigger.window, TRAJECTORIES.c.success)
    if len(rows) < trigger.window:
        return Found(False, f"{len(rows)} of {trigger.window} episodes of {_student(record)}")
    found = rate(sum(row.success for row in rows), len(rows))
    far = (
        f"{_student(record)} solved {found.successes} of its last {found.episodes} episodes, at most "
        f"{100 * found.high:.0f} % (bound: {100 * trigger.success_below:.0f} %)"
    )
    return Found(found.high < trigger.success_below, far, mark=rows[0].n)


def _memory(record: Record, trigger: TriggerConfig, kept: Kept) -> Found:
    """Once it has fired, more must be in use than then, or fewer than the bound in between."""
    later = EXPERIENCES.alias()
    newest = ~(
        select(later.c.n).where(later.c.id == EXPERIENCES.c.id, later.c.version > EXPERIENCES.c.version).exists()
    )
    in_use = (EXPERIENCES.c.status.in_(IN_USE), newest, *where(EXPERIENCES, tenant=record.tenant))
    count = int(_rows(record, select(func.count()).select_from(EXPERIENCES).where(*in_use))[0][0])
    far = f"{count} experiences in use (bound: {trigger.memory_over})"
    holds = count > max(trigger.memory_over, kept.count)
    return Found(holds, far, mark=record.newest().experience, count=count)


def _drift(record: Record, trigger: TriggerConfig, gathered: Rows) -> Found:
    body = TRAJECTORIES.c.body
    new = _episodes(record, gathered, trigger.window, body)
    old = _episodes(record, gathered, trigger.window, body, newest=False)
    if len(new) < trigger.window or old[-1].n >= new[-1].n:
        done = len({row.n for row in (*old, *new)})
        return Found(False, f"{done} of {2 * trigger.window} episodes of {_student(record)}")
    moved = distance(_causes(old), _causes(new))
    far = (
        f"the causes in the last {trigger.window} episodes of {_student(record)} are {moved:.2f} away from those in "
        f"its first ones (bound: {trigger.drift:g})"
    )
    return Found(moved >= trigger.drift, far, mark=new[0].n)


def _causes(rows: Sequence[Row[Any]]) -> Counter[str]:
    return Counter(step["diagnosis"]["cause"] for row in rows for step in json.loads(row.body)["steps"])


def _episodes(
    record: Record, gathered: Rows, limit: int, column: ColumnElement[Any], *, newest: bool = True
) -> Sequence[Row[Any]]:
    """Rows of the promoted student's last, or first, episodes in use since the trigger last fired."""
    n, own = TRAJECTORIES.c.n, played_by(_student(record))
    query = select(n, column).where(*gathered, own, TRAJECTORIES.c.ending.not_in(BROKEN))
    return _rows(record, query.order_by(n.desc() if newest else n).limit(limit))


def _gathered(record: Record, kept: Kept, trust: TrustConfig) -> Rows:
    """Which rows are of arms that gather experience, of trusted origins, and new to a trigger."""
    new, gathered = TRAJECTORIES.c.n > kept.mark, TRAJECTORIES.c.arm.in_(EXPERIENCE_ARMS)
    mine = (new, gathered, *where(TRAJECTORIES, tenant=record.tenant))
    origin, environment = TRAJECTORIES.c.origin, TRAJECTORIES.c.environment
    origins = {row.origin for row in _rows(record, select(origin).distinct().where(*mine, origin != OWN))}
    listed = [name for name in origins if of_origin(name, trust) >= trust.threshold]
    # The environment of a conversation is but a name, unless it is configured (`tutelage.memory.trust`).
    doubted = [name for name, worth in trust.environments.items() if worth < trust.threshold]
    return (*mine, or_(origin == OWN, and_(origin.in_(listed), environment.not_in(doubted))))


def _student(record: Record) -> str:
    student = record.promoted()
    return student.label if student is not None else BASE


def _newest(record: Record) -> int:
    return int(_rows(record, select(func.coalesce(func.max(TRAJECTORIES.c.n), 0)))[0][0])


def _rows(record: Record, query: Executable) -> Sequence[Any]:
    """Rows, with their columns by place and name."""
    with record.reading() as connection:
        return connection.execute(query).all()
