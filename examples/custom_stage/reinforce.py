"""A stage of your own in one file: REINFORCE on whole episodes, in plain PyTorch.

Source: Williams 1992, with the mean reward of the batch as the baseline. No clipping, no KL term, one step
per batch of rollouts: the shortest honest policy gradient, to read and to start from.

The settings class is loaded with the configuration, so torch is imported only where the stage runs.
"""

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from tutelage.stage_config import RolloutStageConfig

if TYPE_CHECKING:
    import torch

    from tutelage.training.base import StageContext, StageResult
    from tutelage.training.rollout import Episode


class ReinforceConfig(RolloutStageConfig):
    """Its `type` is the name in ``[[stages]]``; a stage that does not act derives from `StageConfig`."""

    runs: ClassVar[str] = "reinforce:run"
    type: Literal["reinforce"] = "reinforce"
    steps: int = Field(10, ge=1)
    learning_rate: float = Field(2e-6, gt=0)


def run(stage: ReinforceConfig, context: "StageContext") -> "StageResult":
    """Play a batch of fresh train tasks per step, and take one step towards what earned more than the mean."""
    import torch

    from tutelage.training import weights
    from tutelage.training.base import StageResult
    from tutelage.training.rollout import Rollouts

    model, tokenizer = weights.load(context.start)
    rollouts = Rollouts(stage, context, tokenizer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=stage.learning_rate, weight_decay=0.0)
    groups = stage.batch_size // stage.group_size
    metrics, trained = [], []
    for step in range(stage.steps):
        tasks = [context.tasks[(step * groups + group) % len(context.tasks)] for group in range(groups)]
        episodes = rollouts([task for task in tasks for _ in range(stage.group_size)], model)
        loss = policy_loss(model, episodes, stage.temperature)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        metrics.append((step + 1, {**rollouts.figures[-1], "loss": loss.item()}))
        for place, episode in enumerate(episodes):
            key = f"{context.cycle}/{stage.type}/{context.number}/{step}/{place}"
            context.record.add_trajectory(episode.trajectory, key=key, cycle=context.cycle, arm=stage.type)
            trained.append(context.record.trajectory_by_key(key).id)  # after a kill, the first run's stands
        context.progress(stage.type, step + 1, stage.steps)
    digest = weights.save(model, tokenizer, context.folder)
    return StageResult(folder=context.folder, digest=digest, trajectories=tuple(trained), metrics=metrics)


def policy_loss(model: "torch.nn.Module", episodes: "list[Episode]", temperature: float) -> "torch.Tensor":
    """Minus the mean of advantage × log-probability over all sampled tokens of the batch."""
    import torch

    from tutelage.training.rollout import flatten

    rewards = torch.tensor([episode.reward for episode in episodes])
    total, tokens = torch.tensor(0.0), 0
    for episode, advantage in zip(episodes, rewards - rewards.mean(), strict=True):
        flat = flatten(episode)
        ids = torch.tensor([flat.prompt_ids + flat.completion_ids])
        logprobs = (model(ids).logits[0, len(flat.prompt_ids) - 1 : -1] / temperature).log_softmax(-1)
        chosen = logprobs.gather(-1, torch.tensor(flat.completion_ids)[:, None]).squeeze(-1)
        total = total - advantage * (chosen * torch.tensor(flat.mask)).sum()
        tokens += sum(flat.mask)
    return total / max(tokens, 1)
