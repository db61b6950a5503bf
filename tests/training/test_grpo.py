"""GRPO: only tokens that the policy sampled carry loss, and a stage runs from end to end."""

from dataclasses import replace

import pytest
import torch
from trl import GRPOTrainer

from tutelage.config import GrpoConfig
from tutelage.environments.toy import Toy
from tutelage.errors import EnvironmentBroken
from tutelage.training import grpo, weights
from tutelage.training.base import run_stage
from tutelage.training.rollout import Rollouts, flatten
from tutelage.training.trl_adapter import label_positions_only

STAGE = GrpoConfig(steps=2, batch_size=4, group_size=2, temperature=0.9, learning_rate=1e-3)
REWARDS = (1.0, 0.0, 0.25, 0.5)


class Graded(Rollouts):
    """Real rollouts with rewards that vary, as a random student earns none."""

    def __call__(self, tasks, model):
        graded = [replace(e, reward=r) for e, r in zip(super().__call__(tasks, model), REWARDS, strict=True)]
        self.batches[-1] = graded
        return graded


@pytest.fixture
def batch(stage_context):
    """A trainer in training mode, its episodes, and the batch that TRL made of them."""
    model, tokenizer = weights.load("tiny")
    context = stage_context()
    rollouts = Graded(STAGE, context, tokenizer)
    trainer = grpo.make_trainer(STAGE, context, model, tokenizer, rollouts)
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    rows = [trainer.train_dataset[index // 2] for index in range(4)]
    with label_positions_only():
        yield trainer, rollouts.batches, trainer._generate_and_score_completions(rows)


def gradient(loss, model):
    model.zero_grad()
    loss.backward()
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])


def reference(model, episodes):
    """The same loss from its definition: one unpadded episode at a time, all logits."""
    total, tokens = 0.0, 0
    for episode, advantage in zip(episodes, (0.5, -0.5, -0.125, 0.125), strict=True):
        flat = flatten(episode)
        ids = torch.tensor([flat.prompt_ids + flat.completion_ids])
        logprobs = (model(ids).logits[0, :-1] / STAGE.temperature).log_softmax(-1)
        chosen = logprobs.gather(-1, ids[0, 1:, None])[len(flat.prompt_ids) - 1 :, 0]
        mask = torch.tensor(flat.mask)
        total = total - (advantage * chosen * mask).sum()
        tokens += sum(flat.mask)
    return total / tokens


def test_gradient_equals_plain_pytorch_over_sampled_tokens(batch):
    trainer, batches, inputs = batch
    # The ratio to the sampling policy is 1, so the loss itself is a mean of advantages; its gradient tells.
    ours = gradient(trainer.compute_loss(trainer.model, inputs), trainer.model)
    plain = gradient(reference(trainer.model, batches[0]), trainer.model)
    assert plain.norm() > 0.01
    assert (ours - plain).abs().max() < 1e-5


def test_only_sampled_tokens_carry_loss(batch, monkeypatch):
    trainer, _, inputs = batch
    model, width = trainer.model, inputs["completion_ids"].size(1)
    observed = (inputs["tool_mask"] == 0) & (inputs["completion_mask"] == 1)
    assert observed.any()
    plain = gradient(trainer.compute_loss(model, inputs), model)
    forward = model.forward

    def scored_against_noise(*args, labels, **kwargs):
        """The model reads the same tokens; only what it did not sample is scored, and against noise."""
        labels = labels.clone()
        labels[:, -width:][observed] = torch.randint(1000, (int(observed.sum()),))
        return forward(*args, labels=labels, **kwargs)

    monkeypatch.setattr(model, "forward", scored_against_noise)
    noisy = gradient(trainer.compute_loss(model, inputs), model)
    assert (noisy - plain).abs().max() < 1e-6
    unmasked = {**inputs, "tool_mask": torch.ones_like(inputs["tool_mask"])}
    assert (gradient(trainer.compute_loss(model, unmasked), model) - plain).abs().max() > 1e-3


@pytest.mark.parametrize("method", ["full", "lora"])
def test_two_steps_from_end_to_end(stage_context, monkeypatch, method):
    monkeypatch.setattr(grpo, "Rollouts", Graded)
    stage = STAGE.model_copy(update={"micro_batch_size": 2, "beta": 0.01})
    contexts = [stage_context(folder, method=method) for folder in "ab"]
    first, second = (run_stage(stage, context) for context in contexts)
    assert first.digest == second.digest == weights.digest(weights.load(str(first.folder))[0])
    assert first.digest != weights.digest(weights.load("tiny")[0])
    assert first.metrics[0][1].keys() >= {"success", "invalid_rate", "groups_with_variance", "grad_norm", "entropy"}
    kept = contexts[0].record.trajectories(arm="grpo")
    assert first.trajectories == tuple(trajectory.id for trajectory in kept)
    assert len(kept) == 8
    assert not contexts[0].checkpoints.exists()


class Down(Toy):
    """An environment that never comes up."""

    def start(self, task):
        raise EnvironmentBroken("the page crashed")


def test_an_alarm_stops_the_run_and_keeps_the_starting_weights(stage_context):
    context = replace(stage_context(), make_environment=lambda _: Down())
    result = run_stage(STAGE, context)
    assert [values.get("alarm/all_episodes_broken") for _, values in result.metrics] == [1.0]
    assert result.digest == weights.digest(weights.load("tiny")[0])
    assert result.trajectories == ()


def test_overridden_names_exist_in_trl():
    assert all(callable(getattr(GRPOTrainer, name)) for name in grpo.OVERRIDDEN)
