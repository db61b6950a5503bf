"""Guardrails measured by replay: which recorded mistakes one would have stopped, and which right actions.

No episode is played. What is counted is what an enforced guardrail meets, the steps of its own task family: a
mistake is a step that the verdict on a failed episode cites, a right action a step of an accepted episode that ran
without complaint and that no verdict cites. Steps of one family resemble each other, so the intervals are somewhat
too narrow.
"""

from collections.abc import Iterable, Mapping, Sequence

from tutelage.agents.guard import forbids
from tutelage.config import EvidenceConfig
from tutelage.experience import Change, Experience, Status
from tutelage.measures import Rate
from tutelage.stats import rate
from tutelage.types import BROKEN, Frozen, Trajectory, Verdict


class Replay(Frozen):
    """What a guardrail would have done in recorded episodes."""

    stopped: Rate
    """Mistakes it would have stopped, of all."""
    blocked: Rate
    """Right actions it would have stopped, of all."""

    @property
    def numbers(self) -> dict[str, float | str]:
        """For `Change.numbers`."""
        parts = {"mistakes": self.stopped, "right actions": self.blocked}
        return {
            f"{what} {name}": float(value)
            for what, rate in parts.items()
            for name, value in (
                ("stopped", rate.successes),
                ("seen", rate.episodes),
                ("low", round(rate.low, 4)),
                ("high", round(rate.high, 4)),
            )
        }

    def __str__(self) -> str:
        return (
            f"replay: stops {self.stopped.successes} of {self.stopped.episodes} mistakes and "
            f"{self.blocked.successes} of {self.blocked.episodes} right actions "
            f"(at most {100 * self.blocked.high:.1f} %)"
        )


def replayed(
    guardrail: Experience, trajectories: Sequence[Trajectory], verdicts: Mapping[str, Verdict], confidence: float
) -> Replay:
    """Replay the guardrail over those of `trajectories` that are of its environment and family.

    Args:
        verdicts: by trajectory id; of a failed episode without one nothing is known to be a mistake.
    """
    stopped, mistakes, blocked, right = 0, 0, 0, 0
    for item in trajectories:
        place = (item.task.environment, item.task.family)
        if item.ending in BROKEN or place != (guardrail.environment, guardrail.family):
            continue
        verdict = verdicts.get(item.id)
        cited = [index for index in (verdict.cited if verdict else ()) if index < len(item.steps)]
        if not item.success:
            mistakes += len(cited)
            stopped += _forbidden(guardrail, item, cited)
        else:
            # A step that is cited in a success is a mistake that was put right later.
            fine = [index for index, step in enumerate(item.steps) if step.diagnosis.fine and index not in cited]
            right += len(fine)
            blocked += _forbidden(guardrail, item, fine)
    return Replay(stopped=rate(stopped, mistakes, confidence), blocked=rate(blocked, right, confidence))


def standing(found: Replay, config: EvidenceConfig) -> tuple[Status | None, str]:
    """What a guardrail deserves by its replay, and why: ``active``, ``candidate``, or None where it is refused."""
    if not found.blocked.episodes:
        return None, "a guardrail of a family without an accepted trajectory to test it on"
    if found.blocked.high <= config.max_blocked:
        if found.stopped.successes:
            return Status.ACTIVE, ""
        return None, "a guardrail that would stop no recorded mistake"
    if found.blocked.successes:
        return None, "a guardrail that would stop a right step"
    if not found.stopped.successes:
        return None, "a guardrail that would stop no recorded mistake"
    return Status.CANDIDATE, "too few right actions to know that it stops none"


def graded(guardrail: Experience, found: Replay, config: EvidenceConfig, *, by: str) -> Experience | None:
    """The guardrail with the status it deserves and the numbers for that, in the same version; None: refused."""
    status, why = standing(found, config)
    if status is None:
        return None
    change = Change(by=by, reason="; ".join(filter(None, (str(found), why))), numbers=found.numbers)
    return guardrail.model_copy(update={"status": status, "change": change})


def _forbidden(guardrail: Experience, trajectory: Trajectory, steps: Iterable[int]) -> int:
    taken = (trajectory.steps[index] for index in steps)
    return sum(forbids([guardrail], step.meaning, step.observation, trajectory.goal) is not None for step in taken)
