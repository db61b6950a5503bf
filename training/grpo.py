"""GRPO on whole episodes in real environments, through TRL's `rollout_func`.

Source: Group Relative Policy Optimization (2402.03300) in the variants named here, as `trl.GRPOTrainer`
implements them. An episode is one sequence; TRL's `env_mask` takes every token out of the loss that the
policy did not sample, and those tokens are still attended to. Settings and departures:

* loss ``dapo`` (2503.14476, TRL's default): a mean over all sampled tokens of the batch, so that long
  episodes weigh as much per token as short ones; no KL term unless `beta` is set (TRL's default too);
* advantages are not divided by the group's deviation (Dr. GRPO, 2503.20783; TRL divides);
* one optimiser step per batch of rollouts, so the ratio to the sampling policy is 1 and clipping idle;
* batches, groups and steps are small, for a CPU; the papers use hundreds of episodes per step.

A group whose episodes all earn the same has no advantage and teaches nothing; that is not an error.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase
from trl import GRPOConfig as TrlConfig
from trl import GRPOTrainer

from tutelage.config import GrpoConfig
from tutelage.training import weights
from tutelage.training.base import StageContext, StageResult, lora
from tutelage.training.online import Figures, finish, settings, task_of, task_rows, train
from tutelage.training.rollout import Rollouts, flatten

OVERRIDDEN = ("_compute_loss", "_get_per_token_logps_and_entropies")


def run(stage: GrpoConfig, context: StageContext) -> StageResult:
    """Train the student by GRPO; one batch of rollouts per optimiser step.

    Raises:
        MissingPart: the starting weights are not here.
    """
    model, tokenizer = weights.load(context.start)
    rollouts = Rollouts(stage, context, tokenizer)
    trainer = make_trainer(stage, context, model, tokenizer, rollouts)
    figures = Figures(rollouts, context, stage.type)
    train(trainer, figures)
    return finish(trainer, tokenizer, figures)


class EpisodeGRPOTrainer(GRPOTrainer):
    """`GRPOTrainer` that runs the LM head on sampled tokens only; the loss is the same.

    TRL scores every token behind the prompt and masks the environment's afterwards; those are most of
    them, and the head is half of a small model's cost. Overrides the two methods in `OVERRIDDEN`.
    """

    _scored: torch.Tensor | None = None

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        self._scored = inputs["tool_mask"] * inputs["completion_mask"]
        try:
            return super()._compute_loss(model, inputs)
        finally:
            self._scored = None

    def _get_per_token_logps_and_entropies(
        self, model: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor, logits_to_keep: int, **options: Any
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        if self._scored is None:  # reference log-probabilities, made before the loss
            return super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, **options
            )
        labels = torch.full_like(input_ids, -100)
        labels[:, -logits_to_keep:] = input_ids[:, -logits_to_keep:].masked_fill(self._scored == 0, -100)
        with self.accelerator.autocast():
            scores = model(input_ids=input_ids, attention_mask=attention_mask, labels=labels, fused_lm_head=True)
        return scores.log_probs[:, -logits_to_keep:], scores.entropy[:, -logits_to_keep:], None


def make_trainer(
    stage: GrpoConfig, context: StageContext, model: Any, tokenizer: PreTrainedTokenizerBase, rollouts: Rollouts
) -> GRPOTrainer:
    """TRL's trainer over `rollouts`."""

    def rollout(prompts: Sequence[Any], trainer: GRPOTrainer) -> dict[str, list[Any]]:
        tasks = [task_of(prompt) for prompt in prompts]
        episodes = rollouts(tasks, trainer.accelerator.unwrap_model(trainer.model))
        flat = [flatten(episode) for episode in episodes]
        return {
            "prompt_ids": [item.prompt_ids for item in flat],
            "completion_ids": [item.completion_ids for item in flat],
            "logprobs": [item.logprobs for item in flat],
            "env_mask": [item.mask for item in flat],
            "episode_reward": [episode.reward for episode in episodes],
        }

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*rollout_func.*experimental")
        return EpisodeGRPOTrainer(
            model=model,
            reward_funcs=episode_reward,
            args=TrlConfig(beta=stage.beta, loss_type="dapo", **settings(stage, context)),
            train_dataset=task_rows(stage, context.tasks),
            processing_class=tokenizer,
            rollout_func=rollout,
            peft_config=lora(context),
        )


def episode_reward(episode_reward: list[float | None], **_: Any) -> list[float | None]:
    """TRL's reward function; the rewards came with the rollouts."""
    return episode_reward
