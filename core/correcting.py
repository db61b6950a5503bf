"""Corrections in a cycle: the teacher is asked about states of the student's own episodes, and its answers are kept."""

from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from tutelage.agents.correction import Case, choose, correct_many
from tutelage.corrections import CORRECTION, Correction, NoCorrection, keep, keep_none
from tutelage.errors import BudgetSpent, TutelageError
from tutelage.progress import Reporter
from tutelage.types import Policy, Split, Trajectory
from tutelage.workspace import ANY_EXPERT, Workspace

if TYPE_CHECKING:
    from tutelage.llm import LLM

EXPERT = ANY_EXPERT.removesuffix("*")
"""How the model strings of scripted experts begin."""


def correct(workspace: Workspace, cycle: int, report: Reporter, *, arm: str) -> None:
    """Ask about at most `collect.corrected` states of this cycle's episodes in `arm`, the student's, and keep what
    came of it; states that were asked about before are not asked about again.

    Raises:
        BudgetSpent: everything up to there is kept.
    """
    limit, record = workspace.config.collect.corrected, workspace.record
    if not limit:
        return
    asker = Asker(workspace)
    cases = asker.cases(record.trajectories(cycle=cycle, arm=arm, split=Split.TRAIN), limit)
    known = record.items(CORRECTION)
    missing = [(trajectory, step) for trajectory, step in cases if f"{trajectory.id}/{step}" not in known]
    size = workspace.config.act.width
    for start in range(0, len(missing), size):
        part = missing[start : start + size]
        spent: BudgetSpent | None = None
        for (trajectory, step), found in zip(part, asker.ask(part), strict=True):
            if isinstance(found, Correction):
                keep(record, found, arm=arm, cycle=cycle)
            elif isinstance(found, NoCorrection):
                keep_none(record, trajectory.id, step, found, arm=arm, cycle=cycle)
            elif isinstance(found, BudgetSpent):
                spent = found
        if spent is not None:
            raise spent
        report("corrections", len(cases) - len(missing) + start + len(part), len(cases))
    report.say(f"  {told(workspace, cases)}")


def told(workspace: Workspace, cases: Sequence[Case]) -> str:
    """One line: how many states the teacher was asked about, and what came of it."""
    documents = workspace.record.items(CORRECTION)
    bodies = [documents[key] for trajectory, step in cases if (key := f"{trajectory.id}/{step}") in documents]
    dropped = Counter(body["dropped"] for body in bodies if body["correction"] is None)
    why = "".join(f"; {reason}: {count}" for reason, count in sorted(dropped.items()))
    kept = len(bodies) - dropped.total()
    return f"the teacher was asked about {len(bodies)} states of the student, {kept} corrections kept{why}"


class Asker:
    """Asks the teacher about states; called with rollouts, it asks about the first mistake of each."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._by_expert = workspace.config.teacher.model.startswith(EXPERT)
        self._environments = {part.name: part.environment for part in workspace.taught.parts}

    def cases(self, trajectories: Sequence[Trajectory], limit: int) -> list[Case]:
        """The states that are worth asking about, in environments that the teacher can act in."""
        known = [item for item in trajectories if item.task.environment in self._environments]
        return choose(known, limit, by_expert=self._by_expert)

    def ask(self, cases: Sequence[Case]) -> list[Correction | TutelageError]:
        return correct_many(cases, self._teacher, self._corrector, self._meaning)

    def __call__(self, trajectories: Sequence[Trajectory]) -> list[Correction]:
        """At most one correction per episode.

        Raises:
            BudgetSpent: the budget allows no further call.
        """
        cases = [case for item in trajectories for case in self.cases([item], 1)]
        found = self.ask(cases)
        for item in found:
            if isinstance(item, BudgetSpent):
                raise item
        return [item for item in found if isinstance(item, Correction)]

    @cached_property
    def _teacher(self) -> Policy:
        return self._workspace.acting()

    @cached_property
    def _corrector(self) -> "LLM":
        return self._workspace.llm("corrector")

    def _meaning(self, environment: str, action: str, observation: str) -> str:
        return self._environments[environment].meaning(action, observation)
