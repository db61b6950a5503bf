"""TRL's experimental SDPO over whole multi-turn episodes; the one adapter over its internals.

TRL's `SDPOTrainer` scores one completion behind one prompt, with privileged text in front of all of it.
Here the student's sequence is the episode as it was sampled, and the self-teacher's is the same sampled
tokens with privileged text in the observations before them. `completion_ids` hold the sampled tokens only,
so that TRL's divergences, clipping and blend with GRPO work unchanged; two position tables name the place
in each sequence whose logits predict each of them. Five names are overridden (`OVERRIDDEN`), one callable
(`teacher_context_builder`) and one callback (`AdapterAverage`) are replaced; a contract test watches them.

The loss of one token is TRL's divergence between student and self-teacher on the student's top-k tokens,
times the clipped ratio to the sampling weights, times the gate's weight; it is averaged over the distilled
tokens of an episode and then over all episodes, those without any included.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from trl.trainer.utils import pad, selective_log_softmax

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # read when trl.experimental is imported
from trl.experimental.sdpo import SDPOConfig, SDPOTrainer
from trl.experimental.sdpo.loss_utils import apply_importance_sampling_clipping, compute_topk_self_distillation_loss
from trl.experimental.sdpo.sdpo_trainer import DistillationLogits
from trl.experimental.sdpo.teacher_sync import PEFTAdapterEMACallback

__all__ = ["EpisodeSDPOTrainer", "Rollout", "SDPOConfig", "SDPOTrainer", "ScoredEpisode", "ScoredTurn"]

OVERRIDDEN = (
    "sample_rollouts",
    "_compute_teacher_student_logits",
    "_compute_policy_loss",
    "_compute_self_distillation_loss",
    "_setup_teacher_model",
)
Gate = Literal["none", "failures", "sigmoid"]


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
    start: int = 0
    """Place in `sampled` of the first token that may be distilled."""


@dataclass(frozen=True)
class ScoredEpisode:
    turns: Sequence[ScoredTurn]
    reward: float
    counts: bool = True
    """False takes all its tokens out of every loss."""
    won: bool = False
    """Whether it solved its task."""

    @property
    def sampled(self) -> list[int]:
        return [token for turn in self.turns for token in turn.sampled]

    def distilled(self) -> list[int]:
        """1 per sampled token that is distilled before any gate, else 0."""
        return [
            int(self.counts and turn.informed and place >= turn.start)
            for turn in self.turns
            for place in range(len(turn.sampled))
        ]


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


class AdapterAverage(PEFTAdapterEMACallback):
    """The self-teacher's LoRA adapter, averaged from where the student's starts.

    TRL starts both of its factors at zero, so that their product lags with the square of the rate. From
    the student's own start (whose product is zero as well) one factor hardly moves, and the product
    follows as a full teacher's weights would.
    """

    def _initialize_teacher_adapter(self) -> None:
        if not self._initialized:
            super()._initialize_teacher_adapter()
            self.put(self._get_student_state_dict())

    def put(self, state: Mapping[str, torch.Tensor]) -> None:
        """Take over these factors, named as `shadow_weights` are."""
        from peft import set_peft_model_state_dict

        self.shadow_weights = {name: tensor.detach().clone() for name, tensor in state.items()}
        set_peft_model_state_dict(self.model, self.shadow_weights, adapter_name=self.teacher_adapter_name)


class EpisodeSDPOTrainer(SDPOTrainer):
    """`SDPOTrainer` whose samples are episodes from `rollout`.

    Args:
        gate: which tokens are distilled, as `SdpoConfig.gate` says.
        slope: of the sigmoid gate.
    """

    args: Any  # declared by transformers as its own class of arguments
    model: Any

    def __init__(self, *, rollout: Rollout, gate: Gate = "none", slope: float = 5.0, **kwargs: Any) -> None:
        super().__init__(reward_funcs=self.episode_reward, **kwargs)
        self.rollout, self.gate, self.slope = rollout, gate, slope
        self.episodes: list[ScoredEpisode] = []
        self._noted: dict[str, tuple[float, float]] = {}
        """Of the figures since the last log, by name: sum, and number of tokens."""
        self.teacher_context_builder: Any = _TeacherContext(self)

    def sample_rollouts(self, inputs: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Tensors of shape (B, T) for the sequences and (B, A) for the sampled tokens, padded on the right."""
        self.episodes = self.rollout(inputs, self)
        if len(self.episodes) != len(inputs):
            raise ValueError(f"the rollout returned {len(self.episodes)} episodes for {len(inputs)} rows")
        views = [layout([(turn.observation, turn.sampled) for turn in episode.turns]) for episode in self.episodes]
        sampled = [episode.sampled for episode in self.episodes]
        logprobs = [[value for turn in episode.turns for value in turn.logprobs] for episode in self.episodes]
        counts = [[int(e.counts)] * len(tokens) for e, tokens in zip(self.episodes, sampled, strict=True)]
        mine = torch.tensor(float(sum(map(sum, counts))), device=self.accelerator.device)
        self.tokens_per_pass = self.accelerator.gather(mine).mean().clamp(min=1) / self.args.gradient_accumulation_steps
        return {
            **self._sequences("prompt_ids", "prompt_mask", [ids for ids, _ in views]),
            "student_positions": self._padded([positions for _, positions in views]),
            "completion_ids": self._padded(sampled, self._tokenizer.pad_token_id),
            "completion_mask": self._padded(counts),
            "raw_completion_lengths": torch.tensor([len(ids) for ids in sampled], device=self.accelerator.device),
            "old_per_token_logps": self._padded(logprobs),
        }

    def teacher_sequences(self) -> dict[str, torch.Tensor]:
        """The same tokens as the self-teacher sees them; `distill_mask` (B, A) is 1 where they are distilled."""
        views = [layout([(turn.privileged, turn.sampled) for turn in episode.turns]) for episode in self.episodes]
        return {
            **self._sequences("teacher_input_ids", "teacher_attention_mask", [ids for ids, _ in views]),
            "teacher_positions": self._padded([positions for _, positions in views]),
            "distill_mask": self._padded([self._distilled(episode) for episode in self.episodes]),
        }

    def reinforced(self) -> torch.Tensor:
        """(B,) 1 for episodes that GRPO's loss learns from, 0 for those that the gate leaves to the self-teacher."""
        left = [self._left_to_teacher(episode) for episode in self.episodes]
        return 1 - torch.tensor(left, dtype=torch.float32, device=self.accelerator.device)

    def trained_tokens(self, episode: ScoredEpisode) -> int:
        """How many of its tokens carry loss of either kind."""
        if self._left_to_teacher(episode) or self.args.distillation_weight == 1:
            return sum(self._distilled(episode))
        return episode.counts * len(episode.sampled)

    def _left_to_teacher(self, episode: ScoredEpisode) -> bool:
        return self.gate == "failures" and any(self._distilled(episode))

    def _distilled(self, episode: ScoredEpisode) -> list[int]:
        mask = episode.distilled()
        return [0] * len(mask) if self.gate == "failures" and episode.won else mask

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

    def _compute_policy_loss(self, inputs: dict[str, torch.Tensor], student_logits: torch.Tensor) -> torch.Tensor:
        """TRL's mean is over the tokens of one forward pass; here it is over those of the batch, as in its GRPO."""
        loss = super()._compute_policy_loss(inputs, student_logits)
        loss = loss * inputs["completion_mask"].sum() / self.tokens_per_pass
        log = self._metrics["train" if self.model.training else "eval"]["self_distillation/policy_loss"]
        log[-1] = self.accelerator.gather(loss.detach()).mean().item()
        return loss

    def _compute_self_distillation_loss(
        self, model: Any, inputs: dict[str, torch.Tensor], distillation_logits: DistillationLogits
    ) -> torch.Tensor:
        scored, ids = distillation_logits, distillation_logits.completion_ids
        mask = scored.loss_mask
        losses = compute_topk_self_distillation_loss(
            scored.student_logits,
            scored.teacher_logits,
            distillation_topk=self.args.distillation_topk,
            distillation_alpha=self.args.distillation_alpha,
            distillation_add_tail=self.args.distillation_add_tail,
        )
        with torch.no_grad():
            student = selective_log_softmax(scored.student_logits, ids)
            gap = selective_log_softmax(scored.teacher_logits, ids) - student
        losses = apply_importance_sampling_clipping(
            losses, student, inputs["old_per_token_logps"], self.args.distillation_is_clip
        )
        if self.gate == "sigmoid":
            losses = losses * torch.sigmoid(self.slope * gap)
        self._note("self_distillation/distillation_loss", losses.detach(), mask)
        self._note("self_distillation/gap", gap.abs(), mask)
        loss: torch.Tensor = ((losses * mask).sum(-1) / mask.sum(-1).clamp(min=1)).mean()
        return loss

    def _note(self, name: str, values: torch.Tensor, mask: torch.Tensor) -> None:
        """Log the mean of `values` over the masked tokens of all processes and passes; nothing if there are none."""
        sums = torch.stack([(values * mask).sum(), mask.sum().to(values.dtype)])
        total, tokens = self.accelerator.gather(sums).view(-1, 2).sum(0).tolist()
        log = self._metrics["train" if self.model.training else "eval"]
        if tokens:
            # TRL averages what is in the list and empties it when it logs.
            before, count = self._noted[name] if log[name] else (0.0, 0.0)
            self._noted[name] = (before + total, count + tokens)
            log[name] = [(before + total) / (count + tokens)]

    def _setup_teacher_model(self) -> None:
        super()._setup_teacher_model()
        self.adapter_average: AdapterAverage | None = None
        for callback in list(self.callback_handler.callbacks):
            if isinstance(callback, PEFTAdapterEMACallback):
                self.remove_callback(callback)
                self.adapter_average = AdapterAverage(self.model, update_rate=callback.update_rate)
                self.add_callback(self.adapter_average)

    def teacher_state(self) -> dict[str, torch.Tensor]:
        """The self-teacher's weights, for a checkpoint; empty if they follow from the student's, now or then."""
        if self.args.teacher_model_kind != "ema":
            return {}
        if self.adapter_average is None:
            return dict(self.accelerator.unwrap_model(self.teacher_model).state_dict())
        return dict(self.adapter_average.shadow_weights or {})

    def load_teacher_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Go on with a self-teacher from `teacher_state`, before or during training."""
        if not state:
            return
        if self.adapter_average is None:
            self.accelerator.unwrap_model(self.teacher_model).load_state_dict(state)
        else:
            self.adapter_average._initialize_teacher_adapter()
            self.adapter_average.put(state)

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
        output["advantages"] = output["advantages"] * self.trainer.reinforced()
        # TRL takes three keys from what is returned; the others go in directly.
        output["teacher_positions"] = made.pop("teacher_positions")
        output["distill_mask"] = made.pop("distill_mask")
        return {**made, "self_distillation_mask": active}
