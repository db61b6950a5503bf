"""Learning from the student's own states (after DAgger, 1011.0686): what would the teacher have done there?

The student's mistakes lead to states that no demonstration passes through. The teacher is asked for its action in
some of them, with the very conversation that the student had, and then in the role of corrector for words about it.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence

from pydantic import BaseModel

from tutelage.agents.experts import NoExpert, View, acceptable
from tutelage.agents.prompts import prompt
from tutelage.agents.seeds import stable_seed
from tutelage.agents.transcripts import fence, meanings, one_line, transcript
from tutelage.agents.views import CorrectorView, seen
from tutelage.calls import CallError, parse_call
from tutelage.conversation import conversation, join_reply, split_reply
from tutelage.corrections import Correction, NoCorrection
from tutelage.errors import BudgetSpent, TutelageError, UnknownName
from tutelage.llm import LLM
from tutelage.tools import signature
from tutelage.types import BROKEN, Cause, Context, Message, Policy, Reply, Trajectory

Case = tuple[Trajectory, int]
"""A trajectory of the student and one of its steps."""
Meaning = Callable[[str, str, str], str]
"""Environment, action and observation → the action's meaning, empty if it is not well-formed there."""

NO_ANSWER, NOT_AN_ACTION, WAITS, STUDENT_RIGHT = (
    "no answer",
    "names nothing valid",
    "would only wait",
    "the student was right",
)
"""Why nothing came of asking."""
LENGTH = 400
"""Characters of a correction's words at most."""


class Words(BaseModel):
    """The corrector's reply."""

    words: str


def mistaken_states(trajectory: Trajectory, *, by_expert: bool) -> list[int]:
    """Steps at which the teacher may know better, the earliest first.

    Args:
        by_expert: ask the environment's scripted expert, from the text alone; otherwise these are the steps with a
            diagnosis that is not fine, and the last one of a failed episode.
    """
    if by_expert:
        try:
            return [index for index in range(len(trajectory.steps)) if not _accepted(trajectory, index)]
        except (NoExpert, UnknownName):
            return []
    last = len(trajectory.steps) - 1
    failed = not trajectory.success and trajectory.ending not in BROKEN
    return [
        index
        for index, step in enumerate(trajectory.steps)
        if (not step.diagnosis.fine and step.diagnosis.cause is not Cause.ENVIRONMENT_ERROR)
        or (failed and index == last)
    ]


def choose(trajectories: Sequence[Trajectory], limit: int, *, by_expert: bool) -> list[Case]:
    """At most `limit` states to ask about, spread over families; the choice depends on the episodes alone.

    The first mistake of every episode comes before any second one: a later state of an episode that has gone off
    the rails already is worth less. Failed episodes come before others.
    """
    ranked: list[tuple[int, int, str, Case]] = []
    turns: dict[tuple[str, int], int] = defaultdict(int)
    # Episodes that run at once end in any order; the choice must not depend on it.
    for trajectory in sorted(trajectories, key=lambda item: (item.task.kind, item.success, item.task.seed)):
        for rank, step in enumerate(mistaken_states(trajectory, by_expert=by_expert)):
            turn = turns[trajectory.task.kind, rank]
            turns[trajectory.task.kind, rank] += 1
            ranked.append((rank, turn, trajectory.task.kind, (trajectory, step)))
    return [case for *_, case in sorted(ranked, key=lambda item: item[:3])[:limit]]


def correct_many(
    cases: Sequence[Case], teacher: Policy, corrector: LLM, meaning: Meaning
) -> list[Correction | TutelageError]:
    """What was right in each case, in order; where nothing came of it, the error that says why.

    A correction whose words could not be had is kept without them.

    Args:
        teacher: acts on the student's conversation, without experiences.
        corrector: puts the difference into words.

    Raises:
        BudgetSpent: the budget allows no further action; one that it forbids words for is its error in the list.
    """
    contexts = [_context(trajectory, step) for trajectory, step in cases]
    replies = teacher.act(contexts)
    teacher.forget([context.key for context in contexts])
    found: list[Correction | TutelageError] = []
    views: dict[int, CorrectorView] = {}
    for place, ((trajectory, step), reply) in enumerate(zip(cases, replies, strict=True)):
        answer = _checked(trajectory, step, reply, meaning)
        if isinstance(answer, CorrectorView):
            views[place] = answer
            said = join_reply(answer.thought, answer.action)
            found.append(Correction(trajectory=trajectory.id, step=step, reply=said, author=teacher.label))
        else:
            found.append(answer)
    told = corrector.structured_many([corrector_request(view) for view in views.values()], Words)
    for place, words in zip(views, told, strict=True):
        correction = found[place]
        if isinstance(words, BudgetSpent):
            found[place] = words
        elif isinstance(words, Words) and isinstance(correction, Correction):
            found[place] = correction.model_copy(update={"words": one_line(words.words)[:LENGTH]})
    return found


def corrector_request(view: CorrectorView) -> list[Message]:
    right = [f"Action: {view.action}", f"Meaning: {view.meaning}"]
    if view.thought:
        right.append(f"Thought: {one_line(view.thought)}")
    body = [
        f"Environment: {view.environment}",
        *([fence("tools", "\n".join(map(signature, view.tools)))] if view.tools else []),
        fence("transcript", transcript(view.goal, [view.step], view.after)),
        fence("meanings", meanings([view.step])),
        fence("correction", "\n".join(right)),
    ]
    return [Message(role="system", content=prompt("corrector")), Message(role="user", content="\n".join(body))]


def _context(trajectory: Trajectory, step: int) -> Context:
    """What the student saw in that state, its own replies included, without experiences."""
    messages = conversation(trajectory, experiences=False)[: 2 * step + 2]
    seed = stable_seed("correction", trajectory.task.id, step)
    return Context(f"{trajectory.id}/{step}", messages, seed, trajectory.task.environment, trajectory.tools)


def _checked(trajectory: Trajectory, step: int, reply: Reply, meaning: Meaning) -> CorrectorView | NoCorrection:
    """The teacher's reply taken apart, if it is a valid action that the student did not take."""
    if reply.error or not reply.text.strip():
        return NoCorrection(NO_ANSWER, reply.error)
    was = trajectory.steps[step]
    thought, action = split_reply(reply.text)
    meant = meaning(trajectory.task.environment, action, was.observation)
    if not meant:
        return NoCorrection(NOT_AN_ACTION, action[:80])
    if meant == "noop()":
        return NoCorrection(WAITS)
    if _same(action, was.action) or (trajectory.tools and meant == was.meaning):
        return NoCorrection(STUDENT_RIGHT)
    return CorrectorView(
        environment=trajectory.task.environment,
        goal=trajectory.goal,
        tools=trajectory.tools,
        step=seen(trajectory)[step],
        after=was.after,
        thought=thought,
        action=action,
        meaning=meant,
    )


def _accepted(trajectory: Trajectory, index: int) -> bool:
    """Whether the scripted expert would also have taken step `index`."""
    steps = trajectory.steps
    observations = tuple(step.observation for step in steps[: index + 1])
    view = View(trajectory.goal, observations, tuple(step.action for step in steps[:index]))
    return acceptable(trajectory.task.environment, view, steps[index].action)


def _same(one: str, other: str) -> bool:
    try:
        return parse_call(one) == parse_call(other)
    except CallError:
        return False
