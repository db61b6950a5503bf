"""What the self-teacher of SDPO is told and the student is not: its view of a rollout, source by source.

Sources, each with a switch in `SdpoConfig`, and where the self-teacher reads them:

* ``experiences``: what memory recalls for the task (first turn; never one drawn from this very task);
* ``sibling``: the actions of another, successful episode of the same task (first turn);
* ``feedback``: what this very action led to, its diagnosis or what it changed (each turn);
* ``corrections``: a teacher's words on the action that went wrong (its turn).

Only observations differ between the two views; sampled tokens are the same, one by one.
"""

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

from transformers import PreTrainedTokenizerBase

from tutelage.conversation import turn_message
from tutelage.corrections import Correction
from tutelage.experience import Recaller
from tutelage.stage_config import SdpoConfig
from tutelage.training import ranks
from tutelage.training.chat import ChatEncoder
from tutelage.training.rollout import Episode
from tutelage.training.sdpo_trainer import ScoredEpisode, ScoredTurn
from tutelage.types import Cause, Message, Shown, Step, Task, Trajectory

Correct = Callable[[Sequence[Trajectory]], Sequence[Correction]]
"""Asks a teacher about rollouts."""

SOURCES = ("experiences", "sibling", "feedback", "corrections")
MAX_CHANGES = 3
"""Changed lines that feedback on one action names."""


class Privileged:
    """Makes the self-teacher's view of rollouts.

    Args:
        stage: which sources there are, and which tokens are distilled.
        correct: asked about every batch if the stage wants corrections.
    """

    def __init__(
        self,
        stage: SdpoConfig,
        memory: Recaller | None,
        tokenizer: PreTrainedTokenizerBase,
        correct: Correct | None = None,
    ) -> None:
        self._stage, self._encoder = stage, ChatEncoder(tokenizer)
        self._memory = memory if stage.experiences else None
        self._correct = correct if stage.corrections else None
        self._recalled: dict[str, tuple[Shown, ...]] = {}
        self.used: dict[str, None] = {}
        """Ids of the experiences that the self-teacher saw, in the order of first use."""
        self.corrections: list[Correction] = []
        """What a teacher said about rollouts, in order."""
        self.figures: dict[str, float] = {}
        """Of the last batch: ``informed_SOURCE``, the share of turns that a source had something to say about
        (experiences and siblings speak of all turns of their episode), and ``corrected``, the answers of a teacher."""

    def score(self, episodes: Sequence[Episode]) -> list[ScoredEpisode]:
        """The episodes, groups adjacent, with the self-teacher's observations; siblings are group members that won.

        Where several processes train together, each scores its own share of one batch: siblings, a teacher's words
        and the figures are those of the whole.
        """
        every, at = ranks.everyone(episodes), ranks.place(episodes)
        asked = [episode.trajectory for episode in every if not episode.broken]
        said = list(self._correct(asked)) if self._correct and asked else []
        self.corrections += said
        told = {item.key: item.note for item in said}
        mine = range(at, at + len(episodes))
        views = [self._view(every[place], self._sibling(every, place), told) for place in mine]
        spoke = ranks.everyone([sources for _, turns in views for sources in turns])
        shares = {name: fmean(name in sources for sources in spoke) if spoke else 0.0 for name in SOURCES}
        self.figures = {f"informed_{name}": share for name, share in shares.items()}
        if self._correct:
            self.figures["corrected"] = float(len(said))
        self.used |= dict.fromkeys(ranks.everyone(list(self.used)))
        return [scored for scored, _ in views]

    def state(self) -> dict[str, Any]:
        """What `load` takes, as JSON; memory is asked again for what it said."""
        said = [item.model_dump(mode="json") for item in self.corrections]
        return {"used": list(self.used), "corrections": said}

    def load(self, state: dict[str, Any]) -> None:
        """Go on as when `state` was taken."""
        self.used = dict.fromkeys(state["used"])
        self.corrections = [Correction.model_validate(item) for item in state["corrections"]]

    def _recall(self, trajectory: Trajectory) -> tuple[Shown, ...]:
        """What memory has for the episode's task, asked once per task."""
        if self._memory is None:
            return ()
        task: Task = trajectory.task
        if task.id not in self._recalled:
            self._recalled[task.id] = self._memory.recall(task, trajectory.goal, trajectory.first_observation).shown
            self.used |= dict.fromkeys(item.id for item in self._recalled[task.id])
        return self._recalled[task.id]

    def _sibling(self, episodes: Sequence[Episode], place: int) -> Trajectory | None:
        if not self._stage.sibling:
            return None
        first = place - place % self._stage.group_size
        group = enumerate(episodes[first : first + self._stage.group_size], start=first)
        others = (episode.trajectory for index, episode in group if index != place)
        return next((other for other in others if other.success), None)

    def _view(
        self, episode: Episode, sibling: Trajectory | None, told: Mapping[str, str]
    ) -> tuple[ScoredEpisode, list[set[str]]]:
        """The episode as the self-teacher sees it, and per turn the sources that speak of it (none if it broke).

        Args:
            told: a teacher's notes by the correction's key.
        """
        if episode.broken:
            plain = [ScoredTurn(t.prompt, t.prompt, t.sampled, t.logprobs, informed=False) for t in episode.turns]
            return ScoredEpisode(plain, episode.reward, counts=False), []
        trajectory, tools = episode.trajectory, episode.trajectory.tools
        shown = self._recall(trajectory)
        turns: list[ScoredTurn] = []
        spoke: list[set[str]] = []
        for index, (step, tokens) in enumerate(zip(trajectory.steps, episode.turns, strict=True)):
            first, key = index == 0, f"{trajectory.id}/{index}"
            said = {
                "sibling": [demonstration(sibling)] if sibling else [],
                "feedback": feedback(step) if self._stage.feedback else [],
                "corrections": [told[key]] if key in told else [],
            }
            spoke.append({name for name, notes in said.items() if notes} | ({"experiences"} if shown else set()))
            notes = [note for name, some in said.items() if first or name != "sibling" for note in some]
            message = turn_message(
                step.observation,
                (*step.notes, *notes),
                goal=trajectory.goal if first else None,
                shown=shown if first else (),
            )
            if first:
                view = self._encoder.first((Message(role="system", content=trajectory.system), message), tools)
            else:
                closed, before = turns[-1].sampled[-1] == self._encoder.end, trajectory.steps[index - 1].reply
                view = self._encoder.turn(message, closed=closed, tools=tools, reply=before)
            start = self._encoder.action_start(tokens.sampled, tools) if self._stage.tokens == "action" else 0
            turns.append(ScoredTurn(tokens.prompt, view, tokens.sampled, tokens.logprobs, any(spoke), start))
        return ScoredEpisode(turns, episode.reward, won=trajectory.success), spoke


def feedback(step: Step) -> list[str]:
    """What the environment said about this very action; the student only sees it in its next turn, if at all."""
    diagnosis = step.diagnosis
    if diagnosis.cause is Cause.SOLVED:
        return ["Your next action solves the task."]
    if diagnosis.evidence:
        return [f"Your next action would lead to this: {diagnosis.evidence}"]
    changes = [f"+ {line}" for line in diagnosis.added] + [f"- {line}" for line in diagnosis.removed]
    return [f"Your next action changes this: {'; '.join(changes[:MAX_CHANGES])}"] if changes else []


def demonstration(sibling: Trajectory) -> str:
    """A solved episode of the same task in one line."""
    return f"These actions solved this task: {'; '.join(step.action for step in sibling.steps)}"
