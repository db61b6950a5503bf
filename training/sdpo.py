"""SDPO on whole episodes: the student learns from itself, told what it could not know.

Source: Self-Distillation Policy Optimization (2601.20802) through `trl.experimental.sdpo`, extended to
many turns (`training.sdpo_trainer`). The self-teacher is the same model re-scoring the student's own
sampled tokens with privileged text in its observations. What the student never sees and it does:

* the experiences that memory recalls for the task (first turn; never one drawn from this very task);
* the actions of a successful sibling, another episode of the same task (first turn);
* what this very action led to: its diagnosis, or what it changed (each turn);
* where asked for (`stage.corrections`), a teacher's words on the action that went wrong (its turn).

As in the paper: top-k of 20 with a tail bucket, ratio clipped at 2, teacher a moving average at 0.05, a
lone success teaches nothing to itself, observations carry no loss. As in its shipped recipes without
feedback: alpha 0.5 (1.0 with feedback).

Departures, and why: feedback is used beside a sibling, not only without one (its ablation finds both
together best); recalled experiences come on top, as in Skill-SD (2604.10674) and SDAR (2605.15155),
since moving them into the weights is the point; half of the loss is GRPO's (the paper's hybrid has 0.9
of it), since a weak student is a weak teacher; lr 2e-6 lies between the paper's 1e-6 and 1e-5; batches
are small, for a CPU. One teacher sequence holds the notes of all turns, so a turn also sees the notes of
those before it. With LoRA the teacher's factors start at zero and are averaged separately (TRL), so that
it lags more than the rate says.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from tutelage.config import SdpoConfig
from tutelage.conversation import turn_message
from tutelage.corrections import Correction, keep
from tutelage.experience import Recaller
from tutelage.training import weights
from tutelage.training.base import StageContext, StageResult, lora
from tutelage.training.chat import ChatEncoder
from tutelage.training.online import Figures, finish, settings, task_of, task_rows, train
from tutelage.training.rollout import Episode, Rollouts
from tutelage.training.sdpo_trainer import EpisodeSDPOTrainer, ScoredEpisode, ScoredTurn, SDPOConfig
from tutelage.types import Cause, Message, Shown, Step, Task, Trajectory

Correct = Callable[[Sequence[Trajectory]], Sequence[Correction]]
"""Asks a teacher about rollouts."""

MAX_CHANGES = 3
"""Changed lines that feedback on one action names."""


def run(stage: SdpoConfig, context: StageContext) -> StageResult:
    """Train the student by SDPO; one batch of rollouts per optimiser step.

    Raises:
        MissingPart: the starting weights are not here.
    """
    model, tokenizer = weights.load(context.start)
    rollouts = Rollouts(stage, context, tokenizer)
    correct = context.correct if stage.corrections else None
    privileged = Privileged(context.memory, tokenizer, stage.group_size, correct)
    trainer = make_trainer(stage, context, model, tokenizer, rollouts, privileged)
    figures = Figures(rollouts, context, stage.type)
    train(trainer, figures)
    result = finish(trainer, tokenizer, figures, experiences=tuple(privileged.used))
    with context.record.transaction():
        for correction in privileged.corrections:
            keep(context.record, correction, arm=stage.type, cycle=context.cycle)
    return result


def make_trainer(
    stage: SdpoConfig,
    context: StageContext,
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    rollouts: Rollouts,
    privileged: "Privileged",
) -> EpisodeSDPOTrainer:
    """TRL's trainer over `rollouts`, re-scored under `privileged`."""

    def rollout(rows: Sequence[dict[str, Any]], trainer: Any) -> list[ScoredEpisode]:
        tasks = [task_of(row["prompt"]) for row in rows]
        episodes, before = rollouts(tasks, trainer.accelerator.unwrap_model(trainer.model)), len(privileged.corrections)
        scored = privileged.score(episodes)
        if stage.corrections:
            rollouts.figures[-1]["corrected"] = float(len(privileged.corrections) - before)
        return scored

    # TRL loads a full fine-tune's teacher from this path, in the student's dtype (float32; in bfloat16 an
    # average at 0.05 stands still).
    model.config._name_or_path = str(weights.ensure(context.start))
    return EpisodeSDPOTrainer(
        rollout=rollout,
        model=model,
        args=SDPOConfig(
            distillation_mode="topk_logits",
            distillation_topk=stage.top_k,
            distillation_add_tail=True,
            distillation_alpha=stage.alpha,
            distillation_weight=stage.distillation_weight,
            distillation_is_clip=2.0,
            teacher_model_kind="ema",
            teacher_update_rate=stage.teacher_rate,
            diagnostics_warning_interval=0,
            **settings(stage, context),
        ),
        train_dataset=task_rows(stage, context.tasks),
        processing_class=tokenizer,
        peft_config=lora(context),
    )


class Privileged:
    """Makes the self-teacher's view of rollouts."""

    def __init__(
        self,
        memory: Recaller | None,
        tokenizer: PreTrainedTokenizerBase,
        group_size: int,
        correct: Correct | None = None,
    ) -> None:
        self._memory, self._encoder, self._size = memory, ChatEncoder(tokenizer), group_size
        self._correct = correct
        self._recalled: dict[str, tuple[Shown, ...]] = {}
        self.used: dict[str, None] = {}
        """Ids of the experiences that the self-teacher saw, in the order of first use."""
        self.corrections: list[Correction] = []
        """What a teacher said about rollouts, in order."""

    def score(self, episodes: Sequence[Episode]) -> list[ScoredEpisode]:
        """The episodes with the self-teacher's observations; siblings are group members that won."""
        asked = [episode.trajectory for episode in episodes if not episode.broken]
        said = list(self._correct(asked)) if self._correct and asked else []
        self.corrections += said
        told = {item.key: item.note for item in said}
        return [self._scored(episode, self._sibling(episodes, place), told) for place, episode in enumerate(episodes)]

    def _sibling(self, episodes: Sequence[Episode], place: int) -> Episode | None:
        first = place - place % self._size
        others = (episodes[i] for i in range(first, first + self._size) if i != place)
        return next((other for other in others if other.trajectory.success), None)

    def _scored(self, episode: Episode, sibling: Episode | None, told: Mapping[str, str]) -> ScoredEpisode:
        """`told` holds a teacher's notes by the correction's key."""
        trajectory, tools = episode.trajectory, episode.trajectory.tools
        if episode.broken:
            plain = [ScoredTurn(t.prompt, t.prompt, t.sampled, t.logprobs, informed=False) for t in episode.turns]
            return ScoredEpisode(plain, episode.reward, counts=False)
        shown = self._recall(trajectory.task, trajectory.goal, trajectory.first_observation)
        turns: list[ScoredTurn] = []
        informed = bool(shown or sibling)
        for index, (step, tokens) in enumerate(zip(trajectory.steps, episode.turns, strict=True)):
            first = index == 0
            notes = [*_demonstration(sibling)] if first else []
            notes += feedback(step)
            key = f"{trajectory.id}/{index}"
            notes += [told[key]] if key in told else []
            informed = informed or bool(notes)
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
            turns.append(ScoredTurn(tokens.prompt, view, tokens.sampled, tokens.logprobs, informed))
        return ScoredEpisode(turns, episode.reward)

    def _recall(self, task: Task, goal: str, observation: str) -> tuple[Shown, ...]:
        if self._memory is None:
            return ()
        if task.id not in self._recalled:
            self._recalled[task.id] = self._memory.recall(task, goal, observation).shown
            self.used |= dict.fromkeys(item.id for item in self._recalled[task.id])
        return self._recalled[task.id]


def feedback(step: Step) -> list[str]:
    """What the environment said about this very action; the student only sees it in its next turn, if at all."""
    diagnosis = step.diagnosis
    if diagnosis.cause is Cause.SOLVED:
        return ["Your next action solves the task."]
    if diagnosis.evidence:
        return [f"Your next action would lead to this: {diagnosis.evidence}"]
    changes = [f"+ {line}" for line in diagnosis.added] + [f"- {line}" for line in diagnosis.removed]
    return [f"Your next action changes this: {'; '.join(changes[:MAX_CHANGES])}"] if changes else []


def _demonstration(sibling: Episode | None) -> list[str]:
    if sibling is None:
        return []
    actions = "; ".join(step.action for step in sibling.trajectory.steps)
    return [f"These actions solved this task: {actions}"]
