"""Distillation: the loss from its definition, which teacher may teach, and that the student learns."""

from dataclasses import replace

import pytest
import torch
import trl.trainer.distillation_trainer
from trl import DistillationTrainer

from tutelage.stage_config import DistillConfig
from tutelage.training import distill, weights
from tutelage.training.base import run_stage
from tutelage.training.rollout import Rollouts, flatten
from tutelage.training.trl_adapter import PRIVATE_NAME, label_positions_only
from tutelage.training.whitebox import tokenizer_digest

STAGE = DistillConfig(steps=2, batch_size=4, temperature=0.9, learning_rate=1e-3, alarms={"probe_tasks": 0})


class OneBroke(Rollouts):
    """Real rollouts, the second of each batch declared broken."""

    def __call__(self, tasks, model):
        episodes = super().__call__(tasks, model)
        episodes[1] = replace(episodes[1], broken=True)
        return episodes


def opinionated(seed):
    """Random weights are near uniform; these are not, and differ by their seed."""
    model, tokenizer = weights.load("tiny")
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.03 * torch.randn_like(parameter))
    return model, tokenizer


@pytest.fixture
def teacher(tmp_path):
    """The folder of a teacher."""
    weights.save(*opinionated(2), tmp_path / "teacher")
    return str(tmp_path / "teacher")


def gradient(loss, model):
    model.zero_grad()
    loss.backward()
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])


def reference(stage, student, teacher, episodes):
    """The loss from its definition: one unpadded episode at a time, all logits."""
    total, tokens = torch.tensor(0.0), 0
    for episode in episodes:
        flat = flatten(episode)
        ids = torch.tensor([flat.prompt_ids + flat.completion_ids])
        at = torch.tensor(flat.mask).nonzero().squeeze(-1) + len(flat.prompt_ids) - 1
        p = (student(ids).logits[0, at] / stage.temperature).softmax(-1)
        with torch.no_grad():
            q = (teacher(ids).logits[0, at] / stage.temperature).softmax(-1)
        mixed = (1 - stage.alpha) * p + stage.alpha * q
        forward, reverse = (q * (q / mixed).log()).sum(-1), (p * (p / mixed).log()).sum(-1)
        if stage.alpha in (0, 1):  # the limits: mixed is p, or q
            divergence = (q * (q / p).log()).sum(-1) if stage.alpha == 0 else (p * (p / q).log()).sum(-1)
        else:
            divergence = stage.alpha * forward + (1 - stage.alpha) * reverse
        total, tokens = total + divergence.sum(), tokens + len(at)
    return total / tokens


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_loss_and_gradient_equal_plain_pytorch(stage_context, alpha):
    stage = STAGE.model_copy(update={"alpha": alpha})
    (model, tokenizer), (teacher, _) = opinionated(1), opinionated(2)
    context = stage_context()
    rollouts = OneBroke(stage, context, tokenizer)
    trainer = distill.make_trainer(stage, context, model, tokenizer, rollouts, teacher)
    trainer.model.train()
    with label_positions_only():
        batch = trainer._prepare_inputs([trainer.train_dataset[index] for index in range(4)])
        episodes = rollouts.batches[0]
        assert all(len(episode.turns) > 1 for episode in episodes)
        assert (batch["prompt_mask"] == 0).any(), "prompts are padded on the left"
        assert (batch["completion_mask"] == 0).any(), "and episodes on the right"
        ours = trainer.compute_loss(trainer.model, batch)
        mine = gradient(ours, trainer.model)
    plain = reference(stage, model, teacher, episodes)
    assert plain.item() > 0.01
    assert ours.item() == pytest.approx(plain.item(), rel=1e-5)
    its = gradient(plain, model)
    assert its.norm() > 0.01
    assert (mine - its).abs().max() < 1e-5


class Killed(BaseException):
    """Stands for a kill."""


def test_a_killed_stage_goes_on_to_the_same_student(stage_context, teacher):
    stage = STAGE.model_copy(update={"steps": 3, "group_size": 2, "teacher": teacher, "checkpoint_every": 1})
    whole, broken = (stage_context(folder) for folder in "ab")

    def kill(what, done, total):
        if done == 2:
            raise Killed

    with pytest.raises(Killed):
        run_stage(stage, replace(broken, progress=kill))
    assert not broken.folder.exists()
    assert run_stage(stage, broken).digest == run_stage(stage, whole).digest
    assert len(broken.record.trajectories(arm="distill")) == 12


@pytest.mark.parametrize("method", ["full", "lora"])
def test_two_steps_from_end_to_end(stage_context, teacher, method):
    stage = STAGE.model_copy(update={"group_size": 2, "teacher": teacher})
    whole, split = (stage_context(folder, method=method) for folder in "ab")
    first = run_stage(stage, whole)
    second = run_stage(stage.model_copy(update={"micro_batch_size": 2}), split)
    one, other = (weights.load(str(result.folder))[0] for result in (first, second))
    assert weights.digest(one) == first.digest != weights.digest(weights.load("tiny")[0])
    for mine, its in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.allclose(mine, its, atol=1e-4), "micro batches are the same batch"
    assert first.metrics[0][1].keys() >= {"loss", "success", "invalid_rate", "grad_norm", "entropy"}
    kept = whole.record.trajectories(arm="distill")
    assert first.trajectories == tuple(trajectory.id for trajectory in kept)
    assert [kept[place].task == kept[place + 1].task for place in range(3)] == [True, False, True], "groups of two"
    assert not whole.checkpoints.exists()
    said = whole.record.get(distill.TEACHER, "1/1")
    assert (said["teacher"], said["fine_tuned_on"]) == (teacher, {})
    assert said["digest"] == weights.digest(opinionated(2)[0])
    assert said["tokenizer"] == tokenizer_digest(weights.load_tokenizer("tiny"))


def test_names_of_trl_that_are_relied_on():
    assert all(callable(getattr(DistillationTrainer, name)) for name in distill.OVERRIDDEN)
    private = getattr(trl.trainer.distillation_trainer, PRIVATE_NAME)
    assert private(torch.device("cpu")) is False, "TRL has changed: is the adapter needed?"
