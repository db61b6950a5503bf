"""TRL's experimental SDPO over whole multi-turn episodes; the one adapter over its internals.

TRL's `SDPOTrainer` scores one completion behind one prompt, with privileged text in front of all of it.
Here the student's sequence is the episode as it was sampled, and the self-teacher's is the same sampled
tokens with privileged text in the observations before them. `completion_ids` hold the sampled tokens only,
so that TRL's divergences, clipping and blend with GRPO work unchanged; two position tables name the place
in each sequence whose logits predict each of them. Three names are overridden (`OVERRIDDEN`), one
callable is replaced (`teacher_context_builder`); a contract test watches them. Single process.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from trl.trainer.utils import pad

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # read when trl.experimental is imported
from trl.experimental.sdpo import SDPOConfig, SDPOTrainer
from trl.experimental.sdpo.sdpo_trainer import DistillationLogits

from tutelage.errors import ConfigError

__all__ = ["EpisodeSDPOTrainer", "Rollout", "SDPOConfig", "ScoredEpisode", "ScoredTurn"]

OVERRIDDEN = ("sample_rollouts", "_compute_teacher_student_logits")


@dataclass(frozen=True)
class ScoredTurn:
    """One turn, as sampled and as the self-teacher re-scores it."""

    observation: Sequence[int]
    """Tokens the student saw since its last sampled one."""
    privileged: Sequence[int]
    """What the self-teacher sees in their place."""
    sampled: Sequence[int]
    logprobs: Sequence[float]
    """Of `sampled`, when it was sampled, at the training temperature."""
    informed: bool
    """Whether the self-teacher has seen privileged text by now; without any, the turn is not distilled."""


@dataclass(frozen=True)
class ScoredEpisode:
    turns: Sequence[ScoredTurn]
    reward: float
    counts: bool = True
    """False takes all its tokens out of every loss."""


Rollout = Callable[[list[dict[str, Any]], SDPOTrainer], list[ScoredEpisode]]
"""(rows, trainer) → one episode per row, in order; rows arrive repeated, group members adjacent."""


def layout(pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> tuple[list[int], list[int]]:
    """Ids of (observation, sampled) pairs in a row, and per sampled token the position that predicts it."""
    ids: list[int] = []
    positions: list[int] = []
    for observation, sampled in pairs:
        ids += observation
        positions += range(len(ids) - 1, len(ids) - 1 + len(sampled))
        ids += sampled
    return ids, positions


class EpisodeSDPOTrainer(SDPOTrainer):
    """`SDPOTrainer` whose samples are episodes from `rollout`."""

    def __init__(self, *, rollout: Rollout, **kwargs: Any) -> None:
        super().__init__(reward_funcs=self.episode_reward, **kwargs)
        if self.accelerator.num_processes > 1:
            raise ConfigError("the sdpo stage runs in one process: start it without `accelerate launch`")
        self.rollout = rollout
        self.episodes: list[ScoredEpisode] = []
        self.teacher_context_builder: Any = _TeacherContext(self)

    def sample_rollouts(self, inputs: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Tensors of shape (B, T) for the sequences and (B, A) for the sampled tokens, padded on the right."""
        self.episodes = self.rollout(inputs, self)
        if len(self.episodes) != len(inputs):
            raise ValueError(f"the rollout returned {len(self.episodes)} episodes for {len(inputs)} rows")
        views = [layout([(turn.observation, turn.sampled) for turn in episode.turns]) for episode in self.episodes]
        sampled = [[token for turn in episode.turns for token in turn.sampled] for episode in self.episodes]
        logprobs = [[value for turn in episode.turns for value in turn.logprobs] for episode in self.episodes]
        counts = [[int(e.counts)] * len(tokens) for e, tokens in zip(self.episodes, sampled, strict=True)]
        return {
            **self._sequences("prompt_ids", "prompt_mask", [ids for ids, _ in views]),
            "student_positions": self._padded([positions for _, positions in views]),
            "completion_ids": self._padded(sampled, self._tokenizer.pad_token_id),
            "completion_mask": self._padded(counts),
            "raw_completion_lengths": torch.tensor([len(ids) for ids in sampled], device=self.accelerator.device),
            "old_per_token_logps": self._padded(logprobs),
        }

    def teacher_sequences(self) -> dict[str, torch.Tensor]:
        """The same tokens as the self-teacher sees them; `distill_mask` (B, A) is 1 in informed turns."""
        views = [layout([(turn.privileged, turn.sampled) for turn in episode.turns]) for episode in self.episodes]
        informed = [[int(turn.informed) for turn in e.turns for _ in turn.sampled] for e in self.episodes]
        return {
            **self._sequences("teacher_input_ids", "teacher_attention_mask", [ids for ids, _ in views]),
            "teacher_positions": self._padded([positions for _, positions in views]),
            "distill_mask": self._padded(informed),
        }

    def logits_at(
        self, model: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor, positions: torch.Tensor
    ) -> torch.Tensor:
        """(B, A, V) float32 logits at `positions`, over the temperature; the LM head sees no other position."""

        def gather(_: torch.nn.Module, args: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
            index = positions.unsqueeze(-1).expand(-1, -1, args[0].size(-1))
            return (args[0].gather(1, index),)

        hook = self.accelerator.unwrap_model(model).get_output_embeddings().register_forward_pre_hook(gather)
        try:
            logits = model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).logits
        finally:
            hook.remove()
        return logits.float() / self.temperature

    def _compute_teacher_student_logits(
        self, model: Any, teacher_model: Any, inputs: dict[str, torch.Tensor]
    ) -> DistillationLogits:
        student = self.logits_at(model, inputs["prompt_ids"], inputs["prompt_mask"], inputs["student_positions"])
        with torch.no_grad(), self._get_teacher_context_for_self_distillation():
            was_training = teacher_model.training
            teacher_model.eval()  # a LoRA teacher is the student's own module: its dropout must be off
            try:
                teacher = self.logits_at(
                    teacher_model,
                    inputs["teacher_input_ids"],
                    inputs["teacher_attention_mask"],
                    inputs["teacher_positions"],
                )
            finally:
                teacher_model.train(was_training)
        return DistillationLogits(
            completion_ids=inputs["completion_ids"],
            completion_mask=inputs["completion_mask"],
            loss_mask=inputs["completion_mask"] * inputs["distill_mask"],
            student_logits=student,
            teacher_logits=teacher,
        )

    def episode_reward(self, **_: Any) -> list[float]:
        """TRL's reward function; the rewards came with the episodes."""
        return [episode.reward for episode in self.episodes]

    def _padded(self, rows: Sequence[Sequence[float]], value: int = 0) -> torch.Tensor:
        tensors = [torch.tensor(row) for row in rows]
        return pad(tensors, padding_value=value, padding_side="right").to(self.accelerator.device)

    def _sequences(self, ids: str, mask: str, rows: Sequence[Sequence[int]]) -> dict[str, torch.Tensor]:
        return {
            ids: self._padded(rows, self._tokenizer.pad_token_id),
            mask: self._padded([[1] * len(row) for row in rows]),
        }


class _TeacherContext:
    """Stands in for TRL's builder of reprompts."""

    def __init__(self, trainer: EpisodeSDPOTrainer) -> None:
        self.trainer = trainer
        self.last_metrics: dict[str, float] = {}

    def build(
        self, output: dict[str, torch.Tensor], prompts: Any, rewards: torch.Tensor, feedbacks: Any = None
    ) -> dict[str, torch.Tensor]:
        made = self.trainer.teacher_sequences()
        active = made["distill_mask"].any(1).float()
        tokens = output["completion_mask"].sum().clamp(min=1)
        self.last_metrics = {
            # TRL warns of inactive distillation from the first two; siblings are the caller's business.
            "self_distillation/reprompt_sample_fraction": active.mean().item(),
            "self_distillation/success_group_fraction": 1.0,
            "self_distillation/informed_token_fraction": (made["distill_mask"].sum() / tokens).item(),
        }
        # TRL takes three keys from what is returned; the others go in directly.
        output["teacher_positions"] = made.pop("teacher_positions")
        output["distill_mask"] = made.pop("distill_mask")
        return {**made, "self_distillation_mask": active}
