"""Evidence: what memory does to the success of the promoted student, measured in pairs on a stated budget.

A pair is one task of the train split played twice by the same student with the same seed: with all that memory
shows there (the absorbed too) and with memory off. Its tasks are set apart for measuring: no cycle collects them,
nothing is distilled from them or trained on them, and pairs whose goal and first observation occurred in training
are left out. First whole task families are measured, then single experiences, each shown alone against memory off;
`tutelage.halving` says where the pairs go, `tutelage.effects` what follows from them. What is not measured stays as
it is and is called unmeasured. Guardrails are measured by replay (`tutelage.agents.replay`).

Nothing moves before all is played; then all moves and the result are one transaction. An interrupted measurement
goes on with the same student and tasks, because both stand in the record from the beginning.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cached_property

from tutelage import halving
from tutelage.absorption import absorb, before_absorption, moved, reconcile, restore
from tutelage.agents.graph import run_episodes
from tutelage.agents.replay import replayed, standing
from tutelage.agents.seeds import stable_seed
from tutelage.cycle import experience_trajectories
from tutelage.effects import Pair, destined, effect, numbers, tally
from tutelage.environments.base import SEEDS_PER_SPLIT
from tutelage.errors import RecordError
from tutelage.evaluate import MEASURING, pair_key, seen_pairs
from tutelage.experience import IN_USE, Change, Experience, Recaller, Status
from tutelage.measures import Effect, Finding, Measurement, Move, Student
from tutelage.progress import Reporter
from tutelage.types import Ending, Policy, Split, Task, Trajectory
from tutelage.workspace import Workspace

MEASUREMENT = "measurement"
"""Kind of the documents that hold each measurement, from its plan on."""
EVIDENCE = "evidence"
"""What a change made here names as its maker."""
OFF, ON, ALONE = MEASURING
FIRST_PLACE = SEEDS_PER_SPLIT // 2
"""Where the tasks for measuring begin in each family's train split; cycles collect from its beginning."""
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
    uses = workspace.record.uses()
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
        if not all(item.change.numbers.get("student id") == student.id for item in by_family[family])
    }


class Session:
    """One measurement under way: plays what is missing, reads what is there."""

    def __init__(self, workspace: Workspace, plan: Measurement, report: Reporter) -> None:
        self.workspace, self.plan, self.report = workspace, plan, report
        self.config = workspace.config.evidence
        self.seen = seen_pairs(workspace.record)
        self._known: dict[str, Trajectory] = {}

    @cached_property
    def student(self) -> Student:
        return self.workspace.record.student(self.plan.student)

    @cached_property
    def policy(self) -> Policy:
        """Loaded when the first missing episode is to be played."""
        return self.workspace.student_policy(self.student)

    def families(self) -> dict[str, int]:
        """Play whole families, in rounds; returns how many pairs each of them got."""
        plan, played = self.plan, dict[str, int]()
        given = halving.first_round(list(plan.families), plan.pairs)
        size, left = max(given.values(), default=0), plan.pairs
        while given:
            left -= sum(given.values())
            played = {family: played.get(family, 0) + given.get(family, 0) for family in {**played, **given}}
            tasks = [task for family, count in played.items() for task in self._tasks(family, count)]
            self._play(OFF, "off", tasks, None)
            fresh = [task for task in tasks if not self._was_seen(task)]
            self._play(ON, "on", fresh, self.workspace.memory.recaller(absorbed=True))
            found = {family: tally(self.pairs(family, count)) for family, count in played.items()}
            given = halving.next_round(found, self.config, left, size)
        return played

    def chosen(self, played: Mapping[str, int]) -> tuple[str, ...]:
        """Which experiences matter most: those shown oftenest in this measurement of which nothing is decided yet."""
        if self.plan.chosen is None:
            count: dict[str, int] = {}
            for family, ids in self.plan.families.items():
                pairs = self.pairs(family, played.get(family, 0))
                for item in ids:
                    found = effect(family, pairs, self.config, experience=item)
                    if found.difference.pairs and found.finding is Finding.UNDECIDED:
                        count[item] = found.difference.pairs
            most = self.config.items if self.plan.item_pairs else 0
            picked = tuple(sorted(count, key=lambda item: -count[item])[:most])
            self.plan = self.plan.model_copy(update={"chosen": picked})
            self.workspace.record.put(MEASUREMENT, self.plan.name, self.plan.model_dump(mode="json"))
        assert self.plan.chosen is not None
        return self.plan.chosen

    def singly(self, chosen: Sequence[str]) -> dict[str, int]:
        """Play single experiences by successive halving; returns how many pairs each of them got.

        The tasks are those of the family's pairs, so that a success without memory is played once for all.
        """
        played = dict.fromkeys(chosen, 0)
        going = list(chosen)
        rounds = halving.halvings(len(chosen)) if chosen else 0
        for _ in range(rounds):
            if not going or not (each := halving.share(self.plan.item_pairs, rounds, len(going))):
                break
            for item in going:
                played[item] = min(played[item] + each, self.plan.pairs + self.plan.item_pairs)
                tasks = self._tasks(self._family_of(item), played[item])
                self._play(OFF, "off", tasks, None)
                fresh = [task for task in tasks if not self._was_seen(task)]
                self._play(ALONE, self._arm(item), fresh, self.workspace.memory.recaller(only=item))
            found = {item: tally(self.pairs(self._family_of(item), played[item], item)) for item in going}
            going = halving.better_half(found, self.config, self.plan.item_pairs)
        return played

    def pairs(self, family: str, count: int, item: str = "") -> list[Pair]:
        """The sound, unseen pairs among the family's first `count` tasks; of one experience, those that showed it."""
        pairs = []
        for task in self._tasks(family, count):
            off, on = (self._episode(arm, task) for arm in ("off", self._arm(item) if item else "on"))
            if off is None or on is None or _broken(off) or _broken(on) or self._was_seen(task):
                continue
            shown = frozenset(each.id for each in on.shown)
            if not item or item in shown:
                pairs.append(Pair(on.success, off.success, shown, any(step.blocked_by for step in on.steps)))
        return pairs

    def effect(self, family: str, count: int, *, experience: str = "", alone: bool = False) -> Effect:
        tasks = self._tasks(family, count)
        arm = self._arm(experience) if alone else "on"
        episodes = [(self._episode("off", task), self._episode(arm, task)) for task in tasks]
        return effect(
            family,
            self.pairs(family, count, experience if alone else ""),
            self.config,
            experience=experience,
            alone=alone,
            seen=sum(self._was_seen(task) for task in tasks),
            broken=sum(any(item is not None and _broken(item) for item in pair) for pair in episodes),
        )

    def _play(self, arm: str, part: str, tasks: Sequence[Task], memory: Recaller | None) -> None:
        record, plan = self.workspace.record, self.plan
        missing = [task for task in tasks if not record.has_key(self._key(part, task))]
        done = len(tasks) - len(missing)

        def finished(index: int, trajectory: Trajectory) -> None:
            nonlocal done
            done += 1
            record.add_trajectory(trajectory, key=self._key(part, missing[index]), cycle=plan.cycle, arm=arm)
            self.report(f"{plan.name} {part}", done, len(tasks))

        if missing:
            run_episodes(
                missing,
                self.policy,
                self.workspace.suite.make_for_evaluation,
                act=self.workspace.config.act,
                memory=memory,
                seed=stable_seed(self.workspace.config.seed, plan.name),
                on_finished=finished,
            )

    def _tasks(self, family: str, count: int) -> list[Task]:
        suite = self.workspace.suite.only([family])
        return list(dict.fromkeys(suite.tasks(Split.TRAIN, FIRST_PLACE + self.plan.place, count)))

    def _key(self, part: str, task: Task) -> str:
        return f"{self.plan.name}/{part}/{task.id}"

    def _arm(self, item: str) -> str:
        assert self.plan.chosen is not None
        return f"alone-{self.plan.chosen.index(item)}"  # not the id, which another run of the same would not have

    def _family_of(self, item: str) -> str:
        return next(family for family, ids in self.plan.families.items() if item in ids)

    def _episode(self, part: str, task: Task) -> Trajectory | None:
        key = self._key(part, task)
        if key not in self._known:
            found = self.workspace.record.trajectory_by_key(key)
            if found is None:
                return None
            self._known[key] = found
        return self._known[key]

    def _was_seen(self, task: Task) -> bool:
        off = self._episode("off", task)
        return off is not None and bool(off.steps) and pair_key(off.goal, off.first_observation) in self.seen


def _conclude(session: Session, played: Mapping[str, int], alone: Mapping[str, int]) -> Measurement:
    """All moves and the finished document at once."""
    workspace, plan = session.workspace, session.plan
    effects = [session.effect(family, count) for family, count in played.items()]
    singles: dict[str, Effect] = {}
    for family, count in played.items():
        for item in plan.families[family]:
            pooled = session.effect(family, count, experience=item)
            found = session.effect(family, alone[item], experience=item, alone=True) if alone.get(item) else pooled
            effects += [each for each in (pooled, found) if each.difference.pairs and each not in effects]
            # What it does alone says more about it than what it does among others, once it says anything.
            singles[item] = pooled if found.finding is Finding.UNDECIDED else found
    with workspace.record.transaction():
        moves = [move for item, found in singles.items() if (move := _move(workspace, session.student, item, found))]
        moves += _guardrails(workspace)
        moves += reconcile(workspace)
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
            }
        )
        workspace.record.put(MEASUREMENT, plan.name, done.model_dump(mode="json"))
    return done


def _move(workspace: Workspace, student: Student, experience_id: str, found: Effect) -> Move | None:
    """Give an experience the status that the effect makes due."""
    memory = workspace.memory
    try:
        item = memory.get(experience_id)
    except RecordError:
        return None  # forgotten in the meantime
    if item.status not in MEASURED_STATUSES or not found.difference.pairs:
        return None
    before, able = before_absorption(memory.history(item.id))
    status, reason = destined(item.status, before, found, able)
    if status is item.status:
        return None
    if status is Status.ABSORBED:
        return absorb(memory, item, student, reason, found)
    values: dict[str, float | str] = {"student": student.label, "student id": student.id, **numbers(found)}
    if item.status is Status.ABSORBED and status is before:
        return restore(memory, item, reason, values)
    changes = {"status": status, "absorbed_by": ""}
    memory.change(item.id, Change(by=EVIDENCE, reason=reason, numbers=values), **changes)
    return moved(item, status, reason)


def _guardrails(workspace: Workspace) -> list[Move]:
    """Replay every guardrail in use over what is recorded by now: active on evidence, retired when refuted."""
    memory, config, moves = workspace.memory, workspace.config.evidence, list[Move]()
    rules = memory.experiences(kind="guardrail", statuses=IN_USE)
    if not rules:
        return moves
    verdicts = {verdict.trajectory: verdict for verdict in workspace.record.verdicts()}
    trajectories = experience_trajectories(workspace)
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


def _broken(trajectory: Trajectory) -> bool:
    return trajectory.ending is Ending.ENVIRONMENT_ERROR
