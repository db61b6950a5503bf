"""GRPO: loss and gradient are those of the definition, over sampled tokens alone, and a stage runs from end to end."""

from dataclasses import replace

import pytest
import torch
from trl import GRPOTrainer
from trl.trainer.utils import split_tensor_dict

from tutelage.environments.toy import Toy
from tutelage.errors import EnvironmentBroken
from tutelage.experience import Recall
from tutelage.stage_config import AlarmsConfig, GrpoConfig
from tutelage.training import grpo, weights
from tutelage.training.base import run_stage
from tutelage.training.rollout import Rollouts, flatten
from tutelage.training.trl_adapter import label_positions_only
from tutelage.types import Shown

STAGE = GrpoConfig(steps=2, batch_size=6, group_size=2, temperature=0.9, learning_rate=1e-3, alarms={"probe_tasks": 0})
TWICE = {"iterations": 2, "with_memory": 0.5, "withdraw": False}
REWARDS = (1.0, 0.0, 0.25, 0.25, 0.5, 0.25)
ADVANTAGES = (0.5, -0.5, 0.0, 0.0, 0.125, -0.125)


class Graded(Rollouts):
    """Real rollouts with rewards that vary in the first and third group, as a random student earns none."""

    def __call__(self, tasks, model):
        graded = [replace(e, reward=r) for e, r in zip(super().__call__(tasks, model), REWARDS, strict=True)]
        self.batches[-1] = graded
        return graded


class Memory:
    """Recalls one experience, of any task."""

    def recall(self, task, goal, observation):
        return Recall(shown=(Shown(id="exp_1", version=1, text="Mind the zebra."),))


@pytest.fixture
def make(stage_context):
    """Makes a trainer in training mode, its episodes, and the batch that TRL made of them, in their order."""

    def make(**changes):
        stage = STAGE.model_copy(update=changes)
        model, tokenizer = weights.load("tiny")
        context = stage_context(memory=Memory())
        rollouts = Graded(stage, context, tokenizer)
        trainer = grpo.make_trainer(stage, context, model, tokenizer, rollouts)
        trainer.model.train()
        trainer.current_gradient_accumulation_steps = trainer.args.gradient_accumulation_steps
        rows = [trainer.train_dataset[index // stage.group_size] for index in range(stage.batch_size)]
        inputs = trainer._generate_and_score_completions(rows)
        return trainer, rollouts.batches[0], inputs

    with label_positions_only():
        yield make


def drift(model):
    """Weights that other steps have moved, so far that many ratios leave the clipped range."""
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))


def scored(model, episode, temperature):
    """Log-probabilities of one unpadded episode's sampled tokens, from all logits."""
    ids, at = [], []
    for turn in episode.turns:
        ids += turn.prompt
        at += range(len(ids), len(ids) + len(turn.sampled))
        ids += turn.sampled
    logprobs = (model(torch.tensor([ids])).logits[0] / temperature).log_softmax(-1)
    return logprobs[[place - 1 for place in at]].gather(-1, torch.tensor(ids)[at, None])[:, 0]


def reference(stage, model, episodes, *, old=None, start=None, unclipped=False):
    """The loss from its definition; `old` are the weights that sampled, `start` those that the KL term is to."""
    total, tokens = torch.tensor(0.0), 0
    for episode, advantage in zip(episodes, ADVANTAGES, strict=True):
        if stage.skip_equal and advantage == 0:
            continue
        now = scored(model, episode, stage.temperature)
        with torch.no_grad():
            before = scored(old, episode, stage.temperature) if old else now.detach()
        ratio = (now - before).exp()
        low, high = (0.0, 1e9) if unclipped else (1 - stage.clip, 1 + stage.clip_high)
        loss = -torch.minimum(ratio * advantage, ratio.clamp(low, high) * advantage)
        if stage.beta:
            with torch.no_grad():
                anchor = scored(start, episode, stage.temperature)
            loss = loss + stage.beta * ratio * ((anchor - now).exp() - (anchor - now) - 1)
        total, tokens = total + loss.sum(), tokens + len(now)
    return total / tokens


def gradient(loss, model):
    model.zero_grad()
    loss.backward()
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"skip_equal": False},
        {"skip_equal": False, "beta": 0.1},
        {"beta": 0.1, **TWICE},
        {"micro_batch_size": 2, **TWICE},
        {"micro_batch_size": 3, "skip_equal": False, **TWICE},
    ],
    ids=str,
)
def test_loss_and_gradient_equal_plain_pytorch(make, changes):
    trainer, episodes, inputs = make(**changes)
    stage, sampled = STAGE.model_copy(update=changes), weights.load("tiny")[0]
    assert any(episode.stripped for episode in episodes) is bool(stage.with_memory)
    assert min(len(episode.turns) for episode in episodes) > 1
    if stage.iterations > 1 or stage.beta:
        drift(trainer.model)
    old = sampled if stage.iterations > 1 else None
    passes = trainer.args.gradient_accumulation_steps
    parts = [trainer.compute_loss(trainer.model, part) for part in split_tensor_dict(inputs, passes)]
    ours, mine = sum(parts), gradient(sum(parts), trainer.model)
    theirs = reference(stage, trainer.model, episodes, old=old, start=sampled)
    plain = gradient(theirs, trainer.model)
    assert plain.norm() > 0.01
    assert abs(ours - theirs) < 1e-5
    assert (mine - plain).abs().max() < 1e-5
    if stage.iterations > 1:
        free = reference(stage, trainer.model, episodes, old=old, start=sampled, unclipped=True)
        assert abs(theirs - free) > 1e-3, "nothing was clipped"


def test_episodes_are_padded_on_both_sides(make):
    _, _, inputs = make(skip_equal=False, with_memory=0.5, withdraw=False)
    assert not inputs["prompt_mask"][:, 0].all()
    assert not inputs["completion_mask"][:, -1].all()
    assert ((inputs["tool_mask"] == 0) & (inputs["completion_mask"] == 1)).any(), "there are observations in between"


def test_only_sampled_tokens_carry_loss(make, monkeypatch):
    trainer, _, inputs = make(skip_equal=False)
    model, chosen = trainer.model, []
    forward, mask = model.forward, inputs["tool_mask"] * inputs["completion_mask"]

    def watched(*args, labels, **kwargs):
        chosen.append(labels[labels != -100])
        return forward(*args, labels=labels, **kwargs)

    monkeypatch.setattr(model, "forward", watched)
    plain = gradient(trainer.compute_loss(model, inputs), model)
    assert torch.equal(chosen[0], inputs["completion_ids"][mask == 1])
    everything = {**inputs, "tool_mask": torch.ones_like(inputs["tool_mask"])}
    assert (gradient(trainer.compute_loss(model, everything), model) - plain).abs().max() > 1e-3


def test_a_group_without_variance_is_not_forwarded(make):
    trainer, episodes, inputs = make()
    shapes = []
    trainer.model.model.register_forward_pre_hook(
        lambda module, args, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    trainer.compute_loss(trainer.model, inputs)
    learnt = [*episodes[:2], *episodes[4:]]
    flat = [flatten(episode) for episode in learnt]
    assert shapes == [(4, max(len(item.prompt_ids) for item in flat) + max(len(item.completion_ids) for item in flat))]
    assert inputs["num_items_in_batch"] == sum(episode.sampled for episode in learnt)


def test_nothing_to_learn_costs_nothing_and_moves_nothing(make, monkeypatch):
    monkeypatch.setattr(f"{__name__}.REWARDS", (0.0,) * 6)
    trainer, _, inputs = make(beta=0.1, **TWICE)
    assert inputs["prompt_ids"].size(1) + inputs["completion_ids"].size(1) == 2
    drift(trainer.model)
    loss = trainer.compute_loss(trainer.model, inputs)
    assert loss == 0
    assert not gradient(loss, trainer.model).any()


def test_an_all_but_impossible_observation_does_not_spoil_the_loss(make):
    """Its ratio to 0 overflows; masked afterwards, infinity times nothing would be no number."""
    trainer, episodes, inputs = make(temperature=0.02, **TWICE)
    drift(trainer.model)
    stage = STAGE.model_copy(update={"temperature": 0.02, **TWICE})
    theirs = reference(stage, trainer.model, episodes, old=weights.load("tiny")[0])
    assert torch.isfinite(theirs)
    assert abs(trainer.compute_loss(trainer.model, inputs) - theirs) < 1e-5 * max(1, abs(theirs))


@pytest.mark.parametrize("method", ["full", "lora"])
def test_two_steps_from_end_to_end(stage_context, monkeypatch, method):
    monkeypatch.setattr(grpo, "Rollouts", Graded)
    stage = STAGE.model_copy(update={"micro_batch_size": 2, "beta": 0.01, "alarms": AlarmsConfig()})
    contexts = [stage_context(folder, method=method) for folder in "ab"]
    first, second = (run_stage(stage, context) for context in contexts)
    assert first.digest == second.digest == weights.digest(weights.load(str(first.folder))[0])
    assert first.digest != weights.digest(weights.load("tiny")[0])
    begun, *steps = (values for _, values in first.metrics)
    assert steps[0].keys() >= {"success", "invalid_rate", "groups_with_variance", "grad_norm", "entropy"}
    assert [begun.keys() == {"probe"}, *("probe" in values for values in steps)] == [True, False, True]
    kept = contexts[0].record.trajectories(arm="grpo")
    assert len(kept) == 12
    carried = [*kept[0:2], *kept[4:8], *kept[10:12]]
    assert first.trajectories == tuple(trajectory.id for trajectory in carried), "not of the groups that were left out"
    assert not contexts[0].checkpoints.exists()


def test_activations_computed_again_give_the_same_gradients(stage_context, monkeypatch):
    monkeypatch.setattr(grpo, "Rollouts", Graded)
    kept, made = (
        run_stage(STAGE.model_copy(update={"gradient_checkpointing": again}), stage_context(str(again)))
        for again in (False, True)
    )
    norms = [[values["grad_norm"] for _, values in result.metrics] for result in (kept, made)]
    assert norms[1] == pytest.approx(norms[0], rel=1e-4)
    assert min(norms[0]) > 0


def test_batches_with_nothing_to_learn_leave_the_weights_alone(stage_context, monkeypatch):
    """The optimiser's momentum of the first step would move them on."""

    class GradedOnce(Graded):
        def __call__(self, tasks, model):
            episodes = super().__call__(tasks, model)
            if len(self.batches) > 1:
                self.batches[-1] = episodes = [replace(episode, reward=0.0) for episode in episodes]
            return episodes

    monkeypatch.setattr(grpo, "Rollouts", GradedOnce)
    stage = STAGE.model_copy(update={"warmup": 0.0})
    once, thrice = (
        run_stage(stage.model_copy(update={"steps": steps}), stage_context(folder))
        for folder, steps in (("a", 1), ("b", 3))
    )
    assert [values["trained_tokens"] > 0 for _, values in thrice.metrics] == [True, False, False]
    assert once.digest == thrice.digest != weights.digest(weights.load("tiny")[0])


def test_two_steps_on_one_batch_of_rollouts(stage_context, monkeypatch):
    monkeypatch.setattr(grpo, "Rollouts", Graded)
    context = stage_context(memory=Memory())
    result = run_stage(STAGE.model_copy(update={"steps": 4, **TWICE}), context)
    kept = context.record.trajectories(arm="grpo")
    assert len(kept) == 12, "two batches for four steps"
    assert sum(trajectory.memory for trajectory in kept) == 6
    assert [values["grad_norm"] > 0 for _, values in result.metrics] == [True] * 4
    assert result.experiences == ("exp_1",)


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
