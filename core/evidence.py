"""Evidence: what memory does to the success of the promoted student, measured in pairs on a stated budget.

A pair is one task of the train split played twice by the same student with the same seed: with all that memory
shows there (the absorbed too) and with memory off (`tutelage.pairing`). Its tasks are set apart for measuring: no
cycle collects them, nothing is distilled from them or trained on them, and pairs whose goal and first observation
occurred in training are left out. First whole task families are measured, then single experiences, each shown alone
against memory off; `tutelage.halving` says where the pairs go, `tutelage.effects` what follows from them. What is not
measured stays as it is and is called unmeasured. Guardrails are measured by replay (`tutelage.agents.replay`).

Nothing moves before all is played; then all moves and the result are one transaction. An interrupted measurement
goes on with the same student and tasks, because both stand in the record from the beginning.
"""

from collections import defaultdict
from collections.abc import Mapping

from tutelage.absorption import (
    HARMED,
    MEASUREMENT,
    absorb,
    before_absorption,
    moved,
    of_student,
    reconcile,
    restore,
)
from tutelage.agents.replay import replayed, standing
from tutelage.cycle import experience_trajectories
from tutelage.effects import destined, numbers
from tutelage.errors import RecordError
from tutelage.experience import IN_USE, Change, Experience, Status
from tutelage.holdings import holdings
from tutelage.measures import Effect, Finding, Measurement, Move, Student
from tutelage.memory.trust import vouched_for
from tutelage.pairing import Session, episodes_shown
from tutelage.progress import Reporter
from tutelage.types import Split
from tutelage.workspace import Workspace

EVIDENCE = "evidence"
"""What a change made here names as its maker."""
BY_HAND = "hand"
"""What the names of measurements outside a cycle begin with."""
MEASURED_STATUSES = (*IN_USE, Status.ABSORBED)


def gather(workspace: Workspace, cycle: int, report: Reporter) -> None:
    """The evidence step of a cycle."""
    found = measure(workspace, f"{cycle}/evidence", cycle, report)
    for move in found.moves:
        report.say(f"  {move.kind} of {move.family}: {move.before} → {move.after}: {move.reason}")
    report.say(f"  {len(found.moves)} moved; {found.unmeasured} in use are unmeasured")


def measure(
    workspace: Workspace,
    name: str,
    cycle: int,
    report: Reporter,
    *,
    pairs: int | None = None,
    item_pairs: int | None = None,
) -> Measurement:
    """Do the measurement with this name, or what is missing of it, and move what it decides.

    Args:
        pairs, item_pairs: budgets of a new measurement; default: the configured ones.
    """
    record, config = workspace.record, workspace.config.evidence
    body = record.get(MEASUREMENT, name)
    if body is None:
        budget = (config.pairs if pairs is None else pairs, config.item_pairs if item_pairs is None else item_pairs)
        plan = _plan(workspace, name, cycle, *budget)
        record.put(MEASUREMENT, name, plan.model_dump(mode="json"))
    else:
        plan = Measurement.model_validate(body)
    if plan.finished:
        return plan
    session = Session(workspace, plan, report)
    played = session.families()
    chosen = session.chosen(played)
    alone = session.singly(chosen)
    return _conclude(session, played, alone)


def measure_by_hand(
    workspace: Workspace, report: Reporter, *, pairs: int | None = None, item_pairs: int | None = None
) -> Measurement:
    """A measurement outside a cycle; one that was interrupted goes on first, on the budget that it had.

    Raises:
        RecordError: the runs of the workspace are another tenant's.
    """
    workspace.record.claim()
    mine = [item for item in measurements(workspace) if item.name.startswith(f"{BY_HAND}/")]
    unfinished = next((item.name for item in mine if not item.finished), None)
    if unfinished is not None:
        report.say(f"going on with {unfinished}, which was interrupted")
    cycle = max((int(key) for key in workspace.record.items("loop")), default=0)
    name = unfinished or f"{BY_HAND}/{len(mine) + 1}"
    return measure(workspace, name, cycle, report, pairs=pairs, item_pairs=item_pairs)


def measurements(workspace: Workspace) -> list[Measurement]:
    """All measurements, in the order in which they were begun."""
    return [Measurement.model_validate(body) for body in workspace.record.items(MEASUREMENT).values()]


def _plan(workspace: Workspace, name: str, cycle: int, pairs: int, item_pairs: int) -> Measurement:
    return Measurement(
        name=name,
        cycle=cycle,
        place=sum(item.pairs + item.item_pairs for item in measurements(workspace)),
        student=workspace.current_student().id,
        pairs=pairs,
        item_pairs=item_pairs,
        families=measurable(workspace, workspace.current_student()) if pairs else {},
    )


def measurable(workspace: Workspace, student: Student) -> dict[str, tuple[str, ...]]:
    """Stickers and skills by family, those shown oftenest first, of families in which not all is decided for `student`.

    Only families that tasks can be drawn from; none while memory shows nothing.
    """
    if not workspace.config.memory.top_k:
        return {}
    uses = workspace.record.uses(split=Split.TRAIN)
    by_family: dict[str, list[Experience]] = defaultdict(list)
    for item in workspace.memory.experiences(statuses=MEASURED_STATUSES):
        on_trial = item.status is Status.CANDIDATE and not workspace.config.memory.candidates
        if item.kind != "guardrail" and not on_trial:
            by_family[f"{item.environment}/{item.family}"].append(item)
    shown = {
        family: sum(uses[item.id].shown for item in items if item.id in uses) for family, items in by_family.items()
    }
    known = [family for family in workspace.suite.families if family in by_family]
    return {
        family: tuple(item.id for item in by_family[family])
        for family in sorted(known, key=lambda family: -shown[family])
        if not all(_decided(item, student) for item in by_family[family])
    }


def _decided(item: Experience, student: Student) -> bool:
    """Whether its status rests on pairs that this student played."""
    return "pairs" in item.change.numbers and item.change.numbers.get("student id") == student.id


def _conclude(session: Session, played: Mapping[str, int], alone: Mapping[str, int]) -> Measurement:
    """All moves and the finished document at once."""
    workspace, plan = session.workspace, session.plan
    families = {family: session.effect(family, count) for family, count in played.items()}
    effects, singles = list(families.values()), dict[str, Effect]()
    for family, count in played.items():
        for item in plan.families[family]:
            singles[item] = session.effect(family, count, experience=item)
            effects.append(singles[item])
            if alone.get(item):
                effects.append(session.effect(family, alone[item], experience=item, alone=True))
                # What it does alone says more about it than what it does among others, once it says anything.
                if effects[-1].finding is not Finding.UNDECIDED:
                    singles[item] = effects[-1]
    effects = [each for each in effects if each.difference.pairs or not each.experience]
    with workspace.record.transaction():
        moves = [
            move
            for item, found in singles.items()
            if (move := _move(workspace, session.student, item, found, families[found.family]))
        ]
        moves += _guardrails(workspace)
        reconcile(workspace)
        in_use = [item for item in workspace.memory.experiences(statuses=IN_USE) if item.kind != "guardrail"]
        measured = {each.experience for each in effects} | {
            each.experience for earlier in measurements(workspace) for each in earlier.effects
        }
        done = plan.model_copy(
            update={
                "finished": True,
                "effects": tuple(effects),
                "moves": tuple(moves),
                "unmeasured": sum(item.id not in measured for item in in_use),
                "holdings": holdings(workspace, episodes_shown(workspace, plan)),
            }
        )
        workspace.record.put(MEASUREMENT, plan.name, done.model_dump(mode="json"))
    return done


def _move(workspace: Workspace, student: Student, experience_id: str, found: Effect, family: Effect) -> Move | None:
    """Give an experience the status that its effect makes due.

    Where its own effect decides nothing, that of the family decides what concerns the student and not the experience:
    whether it is able without memory, or no longer. Where that student is able, harm is its own matter too.
    """
    memory = workspace.memory
    try:
        item = memory.get(experience_id)
    except RecordError:
        return None  # forgotten in the meantime
    if item.status not in MEASURED_STATUSES:
        return None
    of_family = family.finding is Finding.HELD or (
        item.status is Status.ABSORBED and family.finding is not Finding.HARMS
    )
    if found.finding is Finding.UNDECIDED and of_family:
        found = family
    before, able_then = before_absorption(memory.history(item.id))
    able = max(found.without.low, family.without.low) >= workspace.config.evidence.able
    status, reason = destined(item.status, before, found, able_then, student.label if able else "")
    if status is item.status:
        return None
    if status is Status.ABSORBED:
        return absorb(memory, item, student, reason, found)
    values = {**of_student(student), **numbers(found)}
    if item.status is Status.ABSORBED and status is before:
        return restore(memory, item, reason, values)
    if able and found.finding is Finding.HARMS:
        values[HARMED] = student.id
    change = Change(by=EVIDENCE, reason=reason, numbers=values)
    return moved(item, memory.change(item.id, change, status=status, absorbed_by="").status, reason)


def _guardrails(workspace: Workspace) -> list[Move]:
    """Replay every guardrail in use over what is recorded by now: active on evidence, retired when refuted."""
    memory, config, moves = workspace.memory, workspace.config.evidence, list[Move]()
    rules = memory.experiences(kind="guardrail", statuses=IN_USE)
    if not rules:
        return moves
    verdicts = {verdict.trajectory: verdict for verdict in workspace.record.verdicts()}
    trajectories = [item for item in experience_trajectories(workspace) if vouched_for(item, workspace.trust)]
    for rule in rules:
        found = replayed(rule, trajectories, verdicts, config.confidence)
        status, why = standing(found, config)
        refuted = status is None and found.blocked.successes > 0
        due = Status.RETIRED if refuted else Status.ACTIVE if status is Status.ACTIVE else rule.status
        if due is not rule.status:
            reason = f"{found}; {why}" if why else str(found)
            memory.move(rule.id, due, Change(by=EVIDENCE, reason=reason, numbers=found.numbers))
            moves.append(moved(rule, due, reason))
    return moves
