"""Stickers by rounds of extract, modify and utilise (after Sticker-TTS, 2509.05007).

The distiller extracts a sticker from an accepted trajectory. A *modifier*, which sees how the episode began and not
what was done in it, repairs the sticker. A *utiliser* sees the sticker and the same beginning and says what to do
first; the program holds that against what the trajectory did first. Where they differ the modifier is told, and the
next round begins; a sticker from which the first action never follows is dropped.

Departures: in the paper a sticker restates one problem, which is solved in full from it, and rounds go on until the
answers agree or a budget ends, for no right answer is known. Here it describes a family of tasks, so the utiliser also
gets this episode's goal and first observation; the first action stands for the solution of many steps; and an accepted
trajectory says whether it is right. The paper publishes no prompts for modifier and utiliser: these are our own.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import dropwhile, takewhile
from typing import Any

from pydantic import BaseModel

from tutelage.agents.drafts import StickerDraft, Unfounded, sticker
from tutelage.agents.prompts import prompt
from tutelage.agents.transcripts import fence
from tutelage.agents.views import ModifierView, UtiliserView
from tutelage.calls import CallError, parse_call
from tutelage.conversation import turn_message
from tutelage.environments.base import environment_class
from tutelage.errors import BudgetSpent, TutelageError, UnknownName
from tutelage.experience import Sticker
from tutelage.llm import LLM
from tutelage.patterns import OTHER, generalise, matches, occurs
from tutelage.tools import meaning as call_meaning
from tutelage.types import FINE, Cause, Message, Step, Trajectory, Verdict

CANNOT_TELL = "The scripted expert does not know this goal, so it cannot tell what comes first."
"""Note of a scripted utiliser that has no answer; the sticker is then kept, and counted as not verified."""
DOES_NOT_FOLLOW = "a sticker from which the first action does not follow"
UNCHECKED = "a sticker that could not be checked"

_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')


class Modified(BaseModel):
    """The modifier's reply: the sticker as it should be, and what was wrong with it."""

    conditions: list[str] = []
    question: str = ""
    problems: list[str] = []


class Utilised(BaseModel):
    """The utiliser's reply."""

    action: str = ""
    note: str = ""
    """Why there is no action, if there is none."""


@dataclass
class Trial:
    """One sticker on its way through the rounds."""

    sticker: Sticker
    trajectory: Trajectory
    verdict: Verdict
    repaired: bool = False
    verified: bool = False
    refused: str = ""
    """Why it is dropped, one of the fixed phrases; empty if it is kept."""
    feedback: str = ""
    error: TutelageError | None = field(default=None)
    """What keeps it from being decided: the budget is spent."""
    decided: bool = False

    def decide(self, *, refused: str = "", verified: bool = False) -> None:
        self.decided, self.refused, self.verified = True, refused, verified


def refine(trials: Sequence[Trial], llm: LLM, *, rounds: int) -> None:
    """Take all stickers through at most `rounds` rounds, each round with two batches of calls; trials are filled in.

    With no rounds they stay as they are, kept and not verified.
    """
    for number in range(rounds):
        _modify([trial for trial in trials if not trial.decided], llm, again=number > 0)
        _utilise([trial for trial in trials if not trial.decided], llm, last=number + 1 == rounds)


def modifier_request(view: ModifierView) -> list[Message]:
    body = [
        f"Environment: {view.environment}",
        fence("situation", turn_message(view.observation, goal=view.goal).content),
        fence("draft", view.sticker.model_dump_json()),
        *([fence("feedback", view.feedback)] if view.feedback else []),
    ]
    return [Message(role="system", content=prompt("modifier")), Message(role="user", content="\n".join(body))]


def utiliser_request(view: UtiliserView) -> list[Message]:
    body = [
        f"Environment: {view.environment}",
        fence("guide", view.system),
        fence("situation", turn_message(view.observation, goal=view.goal).content),
        fence("experience", view.sticker.model_dump_json()),
    ]
    return [Message(role="system", content=prompt("utiliser")), Message(role="user", content="\n".join(body))]


def follows(action: str, trajectory: Trajectory, verdict: Verdict) -> bool:
    """Whether `action` is what the trajectory did first, or one of the like that it did right after it.

    Cited mistakes and steps that did not run do not count. Texts of several words that stand neither in the goal nor in
    the first observation are the agent's own wording, such as a query, and may differ.
    """
    meant = _meaning(action, trajectory)
    wanted = [step.meaning for step in _first_steps(trajectory, verdict)]
    goal, seen = trajectory.goal, trajectory.first_observation
    return bool(meant) and any(meant == one or matches(_free(one, goal, seen), meant, goal) for one in wanted)


# -- the rounds ---------------------------------------------------------------------------------


def _modify(trials: Sequence[Trial], llm: LLM, *, again: bool) -> None:
    requests = [
        modifier_request(
            ModifierView(
                trial.trajectory.task.environment,
                trial.trajectory.goal,
                trial.trajectory.first_observation,
                trial.sticker,
                trial.feedback,
            )
        )
        for trial in trials
    ]
    for trial, answer in zip(trials, llm.structured_many(requests, Modified), strict=True):
        if _stopped(trial, answer):
            continue
        changed = _repaired(answer) if isinstance(answer, Modified) else None
        if changed is not None and changed != trial.sticker:
            trial.sticker, trial.repaired = changed, True
        elif again:
            trial.decide(refused=DOES_NOT_FOLLOW)  # the same sticker would only be tried again


def _utilise(trials: Sequence[Trial], llm: LLM, *, last: bool) -> None:
    requests = [
        utiliser_request(
            UtiliserView(
                trial.trajectory.task.environment,
                trial.trajectory.system,
                trial.trajectory.goal,
                trial.trajectory.first_observation,
                trial.sticker,
            )
        )
        for trial in trials
    ]
    for trial, answer in zip(trials, llm.structured_many(requests, Utilised), strict=True):
        if _stopped(trial, answer):
            continue
        if not isinstance(answer, Utilised):
            trial.decide(refused=UNCHECKED)
        elif llm.embedded and answer.note == CANNOT_TELL:
            trial.decide()
        elif follows(answer.action, trial.trajectory, trial.verdict):
            trial.decide(verified=True)
        elif not _comparable(trial.trajectory, trial.verdict):
            trial.decide()
        elif last:
            trial.decide(refused=DOES_NOT_FOLLOW)
        else:
            trial.feedback = _mismatch(answer, trial.trajectory, trial.verdict)


def _stopped(trial: Trial, answer: object) -> bool:
    if isinstance(answer, BudgetSpent):
        trial.error = answer
        trial.decide()
    return isinstance(answer, BudgetSpent)


def _repaired(answer: Modified) -> Sticker | None:
    """None if what the modifier wrote is no sticker; the one before stays then."""
    draft = StickerDraft(conditions=answer.conditions, question=answer.question)
    try:
        draft.sound()
        return sticker(draft)
    except Unfounded:
        return None


def _mismatch(answer: Utilised, trajectory: Trajectory, verdict: Verdict) -> str:
    """What the modifier is told: kinds of actions, without the values of the goal."""
    goal = trajectory.goal
    done = " or ".join(dict.fromkeys(generalise(step.meaning, goal) for step in _first_steps(trajectory, verdict)))
    said = generalise(_meaning(answer.action, trajectory) or answer.action, goal) or "nothing"
    return f"From this sticker another agent did {said[:400]} first. {answer.note[:400]}\nRight was: {done[:400]}"


# -- what came first ----------------------------------------------------------------------------


def _right(trajectory: Trajectory, verdict: Verdict) -> list[Step]:
    """The steps that ran, but for the cited mistakes; what one changed need not be to be seen."""
    ran = (*FINE, Cause.NO_EFFECT)
    steps = [(index, step) for index, step in enumerate(trajectory.steps) if step.meaning]
    return [step for index, step in steps if step.diagnosis.cause in ran and index not in verdict.cited]


def _comparable(trajectory: Trajectory, verdict: Verdict) -> bool:
    """Whether the trajectory says what is right at its start: not if that was a mistake which changed something."""
    return any(step.observation == trajectory.first_observation for step in _right(trajectory, verdict)[:1])


def _first_steps(trajectory: Trajectory, verdict: Verdict) -> list[Step]:
    """The first step that counts and the like right after it, whose order may be free: the fields of a form.

    The first one with an effect counts beside one that seemed to have none.
    """
    right = _right(trajectory, verdict)
    effective = list(dropwhile(lambda step: not step.diagnosis.fine, right))
    return [*_alike(right), *_alike(effective)]


def _alike(steps: Sequence[Step]) -> list[Step]:
    """The first of `steps` and those of its sort right after it."""
    return list(takewhile(lambda step: _sort(step.meaning) == _sort(steps[0].meaning), steps))


def _sort(meaning: str) -> str:
    """Verb and role, or tool and first argument: what stands before the first quote."""
    return meaning.partition('"')[0]


def _free(meaning: str, goal: str, observation: str) -> str:
    """A pattern for `meaning` in which the agent's own wording may be any other."""

    def slot(match: re.Match[str]) -> str:
        own = " " in match[1].strip() and not occurs(match[1], goal) and not occurs(match[1], observation)
        return f'"{OTHER}"' if own else match[0]

    return _QUOTED.sub(slot, meaning)


def _meaning(action: str, trajectory: Trajectory) -> str:
    """An action with its references resolved on the first observation; empty if it is none."""
    action = action.strip()
    if trajectory.tools:
        return call_meaning(action)
    try:
        environment: Any = environment_class(trajectory.task.environment)
    except UnknownName:  # recorded elsewhere: as the base class reads it
        try:
            return str(parse_call(action))
        except CallError:
            return ""
    return str(environment.meaning(action, trajectory.first_observation))
