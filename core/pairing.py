"""Playing the pairs of a measurement: what is missing is played, what is there is read from the record.

A pair is one task of the train split played twice by the same student with the same seed, with memory and without.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property

from tutelage import halving
from tutelage.absorption import MEASUREMENT
from tutelage.agents.graph import run_episodes
from tutelage.agents.seeds import stable_seed
from tutelage.effects import Pair, effect, tally
from tutelage.environments.base import SEEDS_PER_SPLIT
from tutelage.evaluate import MEASURING, pair_key, seen_pairs
from tutelage.experience import Recaller
from tutelage.measures import Effect, Finding, Measurement, Student
from tutelage.progress import Reporter
from tutelage.types import Ending, Policy, Split, Task, Trajectory
from tutelage.workspace import Workspace

OFF, ON, ALONE = MEASURING
FIRST_PLACE = SEEDS_PER_SPLIT // 2
"""Where the tasks for measuring begin in each family's train split; cycles collect from its beginning."""


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
        """Which experiences matter most: those shown oftenest in this measurement of which nothing is decided yet.

        Without those that were forgotten since.
        """
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
        return tuple(item for item in self.plan.chosen if self.workspace.record.tombstone(item) is None)

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


def _broken(trajectory: Trajectory) -> bool:
    return trajectory.ending is Ending.ENVIRONMENT_ERROR


def episodes_shown(workspace: Workspace, plan: Measurement) -> list[Trajectory]:
    """The episodes of a measurement with memory on, of whole families."""
    mine = (f"{plan.name}/on/{task.id}" for task in _placed(workspace, plan))
    return [found for key in mine if (found := workspace.record.trajectory_by_key(key)) is not None]


def _placed(workspace: Workspace, plan: Measurement) -> list[Task]:
    """All tasks that the budget could have reached."""
    return [
        task
        for family in plan.families
        for task in workspace.suite.only([family]).tasks(Split.TRAIN, FIRST_PLACE + plan.place, plan.pairs)
    ]
