"""Who may see what: one frozen view per role, built from what there is and holding nothing else.

Every role's request is made from its view alone, so that what a view has no field for cannot reach that role. An
actor's view is `tutelage.types.Context`: the conversation. Only the judge's view has a place for a `Hint`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tutelage.designs import Hint, Persona
from tutelage.experience import Content, Experience, Sticker
from tutelage.types import Cause, Tool, Trajectory, Verdict

ENDED = "ended"
"""The result of the step that ended the episode."""


@dataclass(frozen=True)
class Seen:
    """One step as a role other than the actor may see it: no reward, no experiences, no diagnosis beyond its cause."""

    observation: str
    thought: str
    action: str
    meaning: str
    result: str
    """The step's cause; ``ended`` for the last one, whatever it led to."""


@dataclass(frozen=True)
class PersonaView:
    """Persona generator: what the environment is, and who has been thought of."""

    environment: str
    about: str
    known: tuple[str, ...]
    count: int


@dataclass(frozen=True)
class DesignerView:
    """Task designer: a persona and a part of one exploration."""

    environment: str
    persona: Persona
    guide: str
    """What a task's end may be (`Environment.design_guide`)."""
    tools: tuple[Tool, ...]
    steps: tuple[Seen, ...]
    count: int
    """Proposals asked for."""


@dataclass(frozen=True)
class JudgeView:
    """Judge: the transcript, and the hint if there is one. Neither reward nor experiences."""

    environment: str
    goal: str
    tools: tuple[Tool, ...]
    steps: tuple[Seen, ...]
    final: str
    """The last observation."""
    hint: Hint | None = None


@dataclass(frozen=True)
class DistillerView:
    """Distiller: the transcript, the outcome, the cited steps, what exists already. Never a hint.

    `reason` is what the judge said, and empty where that judge had a hint: its words could carry it.
    """

    environment: str
    goal: str
    tools: tuple[Tool, ...]
    steps: tuple[Seen, ...]
    final: str
    successful: bool
    reason: str
    cited: tuple[int, ...]
    existing: tuple[Content, ...]


@dataclass(frozen=True)
class ModifierView:
    """Modifier: how the episode began, the sticker, and what went wrong with it. Nothing that was done."""

    environment: str
    goal: str
    observation: str
    sticker: Sticker
    feedback: str = ""


@dataclass(frozen=True)
class UtiliserView:
    """Utiliser: how the episode began, how one acts there, and the sticker. Nothing that was done."""

    environment: str
    system: str
    """The actor's system message: the actions or tools there are."""
    goal: str
    observation: str
    sticker: Sticker


@dataclass(frozen=True)
class CorrectorView:
    """Corrector: one state, what the student did there, what came of it, and what was right.

    No hint, no reward and no experiences; the result of a step that ended the episode does not say how.
    """

    environment: str
    goal: str
    tools: tuple[Tool, ...]
    step: Seen
    after: str
    thought: str
    action: str
    meaning: str
    """`thought`, `action` and `meaning` are those of the right reply."""


@dataclass(frozen=True)
class MergerView:
    """Merger: two experiences as they stand, without whom or what they come from."""

    environment: str
    family: str
    first: Content
    second: Content


def seen(trajectory: Trajectory) -> tuple[Seen, ...]:
    """The steps without what no other role may know."""
    found = []
    for step in trajectory.steps:
        ended = step.diagnosis.cause in (Cause.SOLVED, Cause.WRONG_END)
        told = f"{step.diagnosis.cause} {' '.join(step.diagnosis.evidence.split())}".rstrip()
        found.append(Seen(step.observation, step.thought, step.action, step.meaning, ENDED if ended else told))
    return tuple(found)


def judge_view(trajectory: Trajectory, hint: Hint | None = None) -> JudgeView:
    final = trajectory.steps[-1].after if trajectory.steps else ""
    return JudgeView(trajectory.task.environment, trajectory.goal, trajectory.tools, seen(trajectory), final, hint)


def distiller_view(trajectory: Trajectory, verdict: Verdict, existing: Sequence[Experience] = ()) -> DistillerView:
    return DistillerView(
        environment=trajectory.task.environment,
        goal=trajectory.goal,
        tools=trajectory.tools,
        steps=seen(trajectory),
        final=trajectory.steps[-1].after if trajectory.steps else "",
        successful=trajectory.success,
        reason="" if verdict.hinted else verdict.reason,
        cited=verdict.cited,
        existing=tuple(item.content for item in existing),
    )


def designer_view(exploration: Trajectory, persona: Persona, guide: str, *, until: int, count: int) -> DesignerView:
    """`until` is the number of steps of the exploration that are shown."""
    return DesignerView(
        exploration.task.environment, persona, guide, exploration.tools, seen(exploration)[:until], count
    )


def merger_view(first: Experience, second: Experience) -> MergerView:
    return MergerView(first.environment, first.family, first.content, second.content)
