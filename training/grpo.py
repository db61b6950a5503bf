"""GRPO on whole episodes in real environments, through TRL's `rollout_func`.

Source: Group Relative Policy Optimization (2402.03300) in the variants named here, as `trl.GRPOTrainer`
implements them. An episode is one sequence; TRL's `env_mask` takes every token out of the loss that the
policy did not sample, and those tokens are still attended to. Settings and departures:

* loss ``dapo`` (2503.14476, TRL's default): a mean over all sampled tokens of the batch, so that long
  episodes weigh as much per token as short ones; no KL term unless `beta` is set (TRL's default too), and then each
  token's estimate is weighted by the ratio (DeepSeek-V3.2, 2512.02556, TRL's default), which the paper's is not;
* advantages are not divided by the group's deviation (Dr. GRPO, 2503.20783; TRL divides);
* one optimiser step per batch of rollouts, so the ratio to the sampling policy is 1 and clipping idle; with more
  (`iterations`, μ in the paper), the ratio is clipped to 1 − 0.2 and 1 + 0.28 (DAPO's values);
* a group whose episodes all earn the same has no advantage; it is left out (`skip_equal`), so that its tokens do not
  thin out the mean over the others. DAPO samples on until no group is like that; rollouts are too dear here;
* the loss is computed over the rows and columns that carry it, which changes nothing but the time;
* batches, groups and steps are small, for a CPU; the papers use hundreds of episodes per step.

Episodes that were shown experiences (`with_memory`) are in the same groups, and their baseline, as the others; they are
trained on without what they were shown (`training.stripping`).
"""

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase
from trl import GRPOConfig as TrlConfig
from trl import GRPOTrainer
from trl.trainer.utils import pad

from tutelage.stage_config import GrpoConfig
from tutelage.training import ranks
from tutelage.training.base import StageContext, StageResult, load_start, lora
from tutelage.training.online import Figures, finish, settings, task_of, task_rows, train
from tutelage.training.rollout import Episode, Flat, Rollouts, flatten, taught

OVERRIDDEN = ("_compute_loss", "_generate_and_score_completions", "_get_per_token_logps_and_entropies")


def run(stage: GrpoConfig, context: StageContext) -> StageResult:
    """Train the student by GRPO; one batch of rollouts per optimiser step.

    Raises:
        MissingPart: the starting weights are not here.
    """
    model, tokenizer = load_start(context)
    rollouts = Rollouts(stage, context, tokenizer)
    trainer = make_trainer(stage, context, model, tokenizer, rollouts)
    figures = Figures(rollouts, context, stage.type)
    train(trainer, figures)
    return finish(trainer, tokenizer, figures, experiences=tuple(rollouts.used))


class EpisodeGRPOTrainer(GRPOTrainer):
    """`GRPOTrainer` that scores sampled tokens only and forwards only rows that carry loss; the loss is the same.

    TRL scores every token behind the prompt and masks the environment's afterwards; those are most of them, and the
    head is half of a small model's cost. It also forwards every row at the width of the longest, the ones without loss
    included. And where old log-probabilities are kept, the ratio of a masked token that is all but impossible overflows
    and makes the whole loss not a number. Overrides the methods in `OVERRIDDEN`.
    """

    scored: torch.Tensor | None = None
    """(B, C): 1 where a completion's token carries loss; set while log-probabilities are computed."""

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        try:
            return super()._generate_and_score_completions(inputs)
        finally:
            self.scored = None  # a rollout has set it

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        self.scored = inputs["tool_mask"] * inputs["completion_mask"]
        try:
            return super()._compute_loss(model, inputs)
        finally:
            self.scored = None

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        **options: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """(B, C) log-probabilities and entropies of the scored tokens; 0 elsewhere."""
        assert self.scored is not None, "log-probabilities are wanted of episodes that no rollout has brought"
        labels = torch.full_like(input_ids, -100)
        labels[:, -logits_to_keep:] = input_ids[:, -logits_to_keep:].masked_fill(self.scored == 0, -100)
        rows = self.scored.any(1).nonzero()[:, 0]
        if not len(rows):  # the loss is then 0, but must have a gradient
            rows = attention_mask.sum(1).argmin()[None]
        logps, entropies = (torch.zeros(input_ids.shape, device=input_ids.device) for _ in range(2))
        for some in rows.split(batch_size or len(rows)):
            # Prompts are padded on the left and completions on the right, so what is attended to is one stretch.
            columns = attention_mask[some].any(0).nonzero()[:, 0]
            place = (some[:, None], columns[None, :])
            with self.accelerator.autocast():
                scores = model(
                    input_ids=input_ids[place],
                    attention_mask=attention_mask[place],
                    labels=labels[place],
                    fused_lm_head=True,
                )
            later = (some[:, None], columns[None, 1:])  # the first token is predicted by nothing
            logps = logps.index_put(later, scores.log_probs.to(logps.dtype))
            if scores.entropy is not None:  # the reference has none
                entropies = entropies.index_put(later, scores.entropy.detach().to(logps.dtype))
        return logps[:, -logits_to_keep:], entropies[:, -logits_to_keep:], None


def make_trainer(
    stage: GrpoConfig, context: StageContext, model: Any, tokenizer: PreTrainedTokenizerBase, rollouts: Rollouts
) -> GRPOTrainer:
    """TRL's trainer over `rollouts`."""

    def rollout(prompts: Sequence[Any], trainer: GRPOTrainer) -> dict[str, list[Any]]:
        assert isinstance(trainer, EpisodeGRPOTrainer), "it is the one made below"
        tasks = [task_of(prompt) for prompt in prompts]
        episodes = rollouts(tasks, trainer.accelerator.unwrap_model(trainer.model))
        flat = sequences(episodes, stage, end=int(tokenizer.eos_token_id))
        rollouts.figures[-1]["trained_tokens"] = float(sum(ranks.everyone([sum(item.mask) for item in flat])))
        masks = [torch.tensor(item.mask) for item in flat]
        trainer.scored = pad(masks, padding_value=0, padding_side="right").to(trainer.accelerator.device)
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
            args=TrlConfig(
                beta=stage.beta,
                loss_type="dapo",
                num_iterations=stage.iterations,
                epsilon=stage.clip,
                epsilon_high=stage.clip_high,
                **settings(stage, context),
            ),
            train_dataset=task_rows(stage, context.tasks),
            processing_class=tokenizer,
            rollout_func=rollout,
            peft_config=lora(context),
        )


def sequences(episodes: Sequence[Episode], stage: GrpoConfig, *, end: int) -> list[Flat]:
    """What is trained on; an episode without loss is two tokens `end`, so that it costs nothing."""
    at, nothing = ranks.place(episodes), Flat([end], [end], [0], [0.0])
    carry = taught(ranks.everyone(episodes), stage)[at:]
    return [flatten(episode) if loss else nothing for episode, loss in zip(episodes, carry, strict=False)]


def episode_reward(episode_reward: list[float | None], **_: Any) -> list[float | None]:
    """TRL's reward function; the rewards came with the rollouts."""
    return episode_reward
