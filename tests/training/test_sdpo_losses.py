"""SDPO's loss and gradient against plain PyTorch and against TRL's own trainer, and whose weights the teacher has."""

from collections.abc import Sequence
from random import Random
from typing import Any

import pytest
import torch

from tutelage.stage_config import SdpoConfig
from tutelage.training import sdpo, weights
from tutelage.training.online import settings
from tutelage.training.privileged import Privileged
from tutelage.training.rollout import Rollouts
from tutelage.training.sdpo_trainer import ScoredEpisode, ScoredTurn, SDPOConfig, SDPOTrainer

RATE = 0.2
STAGE = SdpoConfig(
    steps=1, batch_size=4, group_size=2, temperature=0.9, learning_rate=1e-2, warmup=0, teacher_rate=RATE
)


def trainer_of(context, stage=STAGE):
    model, tokenizer = weights.load("tiny")
    rollouts = Rollouts(stage, context, tokenizer)
    made = sdpo.make_trainer(stage, context, model, tokenizer, rollouts, Privileged(stage, None, tokenizer))
    made.model.train()
    made.current_gradient_accumulation_steps = 1
    return made


def drift(model, seed, size=0.02):
    """Move weights; random ones are near uniform, so that the first move also gives the model opinions."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(4)
        for parameter in model.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))


def episodes() -> list[ScoredEpisode]:
    """Two groups of two: a winner and a loser; a loser that was told nothing, and one that broke."""
    random = Random(3)

    def ids(count: int) -> tuple[int, ...]:
        return tuple(random.randrange(10, 4000) for _ in range(count))

    def turn(count: int, informed: bool, start: int = 0) -> ScoredTurn:
        seen = ids(random.randrange(3, 9))
        logprobs = [random.gauss(-13, 3) for _ in range(count)]
        return ScoredTurn(seen, (*seen, *ids(4)) if informed else seen, ids(count), logprobs, informed, start)

    return [
        ScoredEpisode([turn(4, False), turn(5, True, start=2), turn(2, True)], 1.0, won=True),
        ScoredEpisode([turn(6, True), turn(3, True, start=1)], -0.1),
        ScoredEpisode([turn(2, False)], 0.4),
        ScoredEpisode([turn(3, True)], 0.15, counts=False),
    ]


def in_doubles(model):
    """The same weights in a model of plain transformers, in float64."""
    plain, _ = weights.load("tiny")
    plain.load_state_dict(model.state_dict())
    return plain.double()


def sequence(turns: Sequence[ScoredTurn], privileged: bool) -> tuple[torch.Tensor, list[int]]:
    """Ids of one episode without padding, and where each of its sampled tokens stands."""
    ids: list[int] = []
    places: list[int] = []
    for turn in turns:
        ids += turn.privileged if privileged else turn.observation
        places += range(len(ids), len(ids) + len(turn.sampled))
        ids += turn.sampled
    return torch.tensor([ids]), places


def divergence(p, q, alpha):
    if alpha == 0:
        return (q * (q / p).log()).sum(-1)
    if alpha == 1:
        return (p * (p / q).log()).sum(-1)
    mixed = (1 - alpha) * p + alpha * q
    return (1 - alpha) * (p * (p / mixed).log()).sum(-1) + alpha * (q * (q / mixed).log()).sum(-1)


def reference(student, teacher, batch, stage):
    """(loss, gap, ratios) by definition: one episode at a time, without padding, all logits."""
    policy, told, gaps, ratios = [], [], [], []
    rewards = torch.tensor([episode.reward for episode in batch], dtype=torch.float64).view(-1, 2)
    advantages = ((rewards - rewards.mean(1, keepdim=True)) / (1 + 1e-4)).flatten()
    for episode, advantage in zip(batch, advantages, strict=True):
        if not episode.counts:
            told.append(torch.tensor(0.0))
            continue
        (ids, places), (seen, at) = sequence(episode.turns, False), sequence(episode.turns, True)
        tokens = ids[0, places].unsqueeze(-1)
        p = (student(ids).logits[0, [place - 1 for place in places]] / stage.temperature).softmax(-1)
        with torch.no_grad():
            q = (teacher(seen).logits[0, [place - 1 for place in at]] / stage.temperature).softmax(-1)
        own, its = p.gather(-1, tokens).squeeze(-1).log(), q.gather(-1, tokens).squeeze(-1).log()
        ratio = (own - torch.tensor([value for turn in episode.turns for value in turn.logprobs])).exp()
        chosen = [turn.informed and k >= turn.start for turn in episode.turns for k in range(len(turn.sampled))]
        if stage.gate == "failures":
            chosen = [one and not episode.won for one in chosen]
        routed = stage.gate == "failures" and any(chosen)
        surrogate = torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage)
        policy.append(surrogate * 0 if routed else -surrogate)
        top = p.topk(stage.top_k, -1).indices
        s, t = p.gather(-1, top), q.gather(-1, top)
        if stage.tail:
            s, t = (torch.cat([some, 1 - some.sum(-1, keepdim=True)], -1) for some in (s, t))
        else:
            s, t = s / s.sum(-1, keepdim=True), t / t.sum(-1, keepdim=True)
        each = divergence(s, t, stage.alpha) * ratio.detach().clamp(max=stage.clip)
        if stage.gate == "sigmoid":
            each = each * torch.sigmoid(stage.gate_slope * (its - own)).detach()
        mask = torch.tensor(chosen, dtype=torch.float64)
        told.append((each * mask).sum() / mask.sum().clamp(min=1))
        gaps += [(its - own).abs()[mask.bool()]]
        ratios.append(ratio)
    weight = stage.distillation_weight
    loss = (1 - weight) * torch.cat(policy).mean() + weight * torch.stack(told).mean()
    return loss, torch.cat(gaps).mean(), torch.cat(ratios)


def gradient(loss, model):
    model.zero_grad()
    loss.backward()
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters()]).double()


@pytest.mark.parametrize(
    "changed",
    [
        {"alpha": 0.0},
        {"alpha": 1.0},
        {"alpha": 0.5, "distillation_weight": 1.0},
        {"alpha": 0.3, "clip": 1.1},
        {"alpha": 0.0, "tail": False, "distillation_weight": 1.0},
        {"alpha": 0.5, "tail": False, "top_k": 3},
        {"gate": "failures"},
        {"gate": "sigmoid"},
        {"gate": "sigmoid", "gate_slope": 0.5, "alpha": 1.0, "distillation_weight": 1.0},
    ],
    ids=str,
)
def test_loss_and_gradient_equal_plain_pytorch(stage_context, changed):
    stage, batch = STAGE.model_copy(update=changed), episodes()
    trainer = trainer_of(stage_context(), stage)
    drift(trainer.model, 1)
    drift(trainer.teacher_model, 2)
    trainer.rollout = lambda rows, _: batch
    inputs = trainer._prepare_training_batch([trainer.train_dataset[index // 2] for index in range(4)])
    student = in_doubles(trainer.model)
    loss, gap, ratios = reference(student, in_doubles(trainer.teacher_model), batch, stage)
    assert ratios.max() > 2 > 0.8 > ratios.min(), "both clips are at work"
    ours = trainer.compute_loss(trainer.model, inputs)
    assert abs(ours.item() - loss.item()) < 1e-5
    mine, its = gradient(ours, trainer.model), gradient(loss, student)
    assert its.norm() > 0.01
    assert (mine - its).abs().max() < 1e-5
    assert trainer._metrics["train"]["self_distillation/gap"] == [pytest.approx(gap.item(), abs=1e-5)]


def test_several_passes_add_up_to_the_batch(stage_context):
    stage, batch = STAGE.model_copy(update={"micro_batch_size": 1}), episodes()
    trainer = trainer_of(stage_context(), stage)
    trainer.current_gradient_accumulation_steps = 4
    drift(trainer.model, 1)
    drift(trainer.teacher_model, 2)
    trainer.rollout = lambda rows, _: batch
    inputs = trainer._prepare_training_batch([trainer.train_dataset[index // 2] for index in range(4)])
    student = in_doubles(trainer.model)
    loss, gap, _ = reference(student, in_doubles(trainer.teacher_model), batch, stage)
    expected = gradient(loss, student)
    passes = [{name: tensor[place : place + 1] for name, tensor in inputs.items()} for place in range(4)]
    summed = sum(gradient(trainer.compute_loss(trainer.model, one), trainer.model) for one in passes)
    assert (summed - expected).abs().max() < 1e-5
    logged = trainer._metrics["train"]["self_distillation/gap"]
    assert logged == [pytest.approx(gap.item(), abs=1e-5)], "per distilled token, not per pass"


@pytest.mark.parametrize(
    ("changed", "each"),
    [
        ({}, [11, 9, 2, 0]),
        ({"distillation_weight": 1.0}, [5, 8, 0, 0]),
        ({"gate": "failures"}, [11, 8, 2, 0]),
        ({"gate": "failures", "distillation_weight": 1.0}, [0, 8, 0, 0]),
    ],
    ids=str,
)
def test_tokens_that_carry_loss_are_counted(stage_context, changed, each):
    trainer = trainer_of(stage_context(), STAGE.model_copy(update=changed))
    assert [trainer.trained_tokens(episode) for episode in episodes()] == each


def test_padding_on_the_left_changes_nothing(stage_context):
    trainer = trainer_of(stage_context())
    drift(trainer.model, 1)
    trainer.rollout = lambda rows, _: episodes()
    right = trainer._prepare_training_batch([trainer.train_dataset[index // 2] for index in range(4)])
    left = dict(right)
    for ids, mask, positions in (
        ("prompt_ids", "prompt_mask", "student_positions"),
        ("teacher_input_ids", "teacher_attention_mask", "teacher_positions"),
    ):
        room = right[mask].size(1) - right[mask].sum(1)
        assert len(set(room.tolist())) > 1
        for name in (ids, mask):
            left[name] = torch.stack([row.roll(int(by)) for row, by in zip(right[name], room, strict=True)])
        left[positions] = right[positions] + room.unsqueeze(1)
    losses = [trainer.compute_loss(trainer.model, inputs) for inputs in (right, left)]
    assert losses[0].item() == pytest.approx(losses[1].item(), abs=1e-5)
    grads = [gradient(loss, trainer.model) for loss in losses]
    assert (grads[0] - grads[1]).abs().max() < 1e-5


def test_privileged_tokens_leave_the_student_bit_identical(stage_context):
    def log_probs(batch: list[ScoredEpisode]) -> tuple[torch.Tensor, torch.Tensor]:
        trainer.rollout = lambda rows, _: batch
        inputs = trainer._prepare_training_batch([trainer.train_dataset[index // 2] for index in range(4)])
        scored = trainer._compute_teacher_student_logits(trainer.model, trainer.teacher_model, inputs)
        return scored.student_logits, scored.teacher_logits

    trainer = trainer_of(stage_context())
    told = episodes()
    more = [
        ScoredEpisode([_more(turn) for turn in episode.turns], episode.reward, episode.counts, episode.won)
        for episode in told
    ]
    (student, teacher), (again, other) = log_probs(told), log_probs(more)
    assert torch.equal(student, again)
    assert (teacher - other).abs().max() > 0.01


def _more(turn: ScoredTurn) -> ScoredTurn:
    seen = (17, 18, 19, *turn.privileged)
    return ScoredTurn(turn.observation, seen, turn.sampled, turn.logprobs, turn.informed, turn.start)


def test_one_turn_equals_trls_own_trainer(stage_context):
    """The same prompts, completions, feedback and rewards; TRL pads prompts on the left, we pad on the right."""
    context = stage_context()
    model, tokenizer = weights.load("tiny")
    model.config._name_or_path = str(weights.ensure("tiny"))
    rows = [
        {"prompt": prompt, "privileged_context": told}
        for prompt, told in [("press the red button", "red is r1"), ("tick all", "there are 3 boxes, not 2")]
    ]
    options: dict[str, Any] = {"alpha": "distillation_alpha", "top_k": "distillation_topk"}
    stock = SDPOTrainer(
        model=model,
        reward_funcs=lambda completions, **_: [1.0, 0.0, 0.25, -0.05],
        args=SDPOConfig(
            distillation_mode="topk_logits",
            distillation_add_tail=STAGE.tail,
            distillation_weight=STAGE.distillation_weight,
            distillation_is_clip=STAGE.clip,
            include_environment_feedback=True,
            teacher_model_kind="ema",
            **{theirs: getattr(STAGE, ours) for ours, theirs in options.items()},
            **settings(STAGE, context),
        ),
        train_dataset=[*rows],
        processing_class=tokenizer,
    )
    stock.model.train()
    stock.current_gradient_accumulation_steps = 1
    batch = stock._prepare_training_batch([rows[index // 2] for index in range(4)])
    assert len(set(batch["prompt_mask"].sum(1).tolist())) > 1
    assert batch["self_distillation_mask"].tolist() == [1, 1, 1, 1]
    generator = torch.Generator().manual_seed(0)
    batch["old_per_token_logps"] = torch.randn(batch["completion_ids"].shape, generator=generator) - 12
    ours = trainer_of(context)
    for trainer in (stock, ours):
        drift(trainer.model, 1)
        drift(trainer.teacher_model, 2)
    taken = []
    for index, reward in enumerate([1.0, 0.0, 0.25, -0.05]):
        prompt = batch["prompt_ids"][index][batch["prompt_mask"][index].bool()].tolist()
        sampled = batch["completion_ids"][index][batch["completion_mask"][index].bool()].tolist()
        told = batch["teacher_input_ids"][index][batch["teacher_attention_mask"][index].bool()].tolist()
        assert told[-len(sampled) :] == sampled
        logprobs = batch["old_per_token_logps"][index, : len(sampled)].tolist()
        taken.append(ScoredEpisode([ScoredTurn(prompt, told[: -len(sampled)], sampled, logprobs, True)], reward))
    ours.rollout = lambda rows, _: taken
    mine = ours._prepare_training_batch([ours.train_dataset[index // 2] for index in range(4)])
    losses = [stock.compute_loss(stock.model, batch), ours.compute_loss(ours.model, mine)]
    assert losses[0].item() == pytest.approx(losses[1].item(), abs=1e-5)
    grads = [gradient(loss, trainer.model) for loss, trainer in zip(losses, (stock, ours), strict=True)]
    assert grads[0].norm() > 0.01
    assert (grads[0] - grads[1]).abs().max() < 1e-5


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("teacher", ["ema", "live", "start"])
def test_the_teacher_has_the_weights_that_it_is_set_to(stage_context, teacher, method):
    context = stage_context(method=method)
    trainer = trainer_of(context, STAGE.model_copy(update={"teacher": teacher}))
    ids = torch.arange(50, 90).unsqueeze(0)
    start = trainer.model(ids).logits.detach()
    before = _delta(trainer.model, "default") if method == "lora" else _flat(trainer.model)
    trainer.train()
    student, told = _both(trainer, ids)
    assert (student - start).abs().max() > 0.01
    if teacher == "live":
        assert torch.equal(told, student)
    elif teacher == "start":
        assert torch.equal(told, start)
    elif method == "full":
        expected = (1 - RATE) * before + RATE * _flat(trainer.model)
        assert torch.allclose(_flat(trainer.teacher_model), expected, atol=1e-7)
    else:  # TRL's own would have the square of the rate
        expected = RATE * _delta(trainer.model, "default")
        assert (_delta(trainer.model, "teacher") - expected).norm() < 0.1 * expected.norm()
    state = {name: tensor.clone() for name, tensor in trainer.teacher_state().items()}
    assert bool(state) == (teacher == "ema")
    if state:
        other = trainer_of(context, STAGE.model_copy(update={"teacher": teacher}))
        other.model.load_state_dict(trainer.model.state_dict(), strict=False)
        other.load_teacher_state(state)
        assert torch.equal(_both(other, ids)[1], told)


def _both(trainer, ids):
    """Logits of student and teacher."""
    with torch.no_grad():
        student = trainer.model(ids).logits
        with trainer._get_teacher_context_for_self_distillation():
            return student, trainer.teacher_model(ids).logits


def _flat(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()]).clone()


def _delta(model, adapter):
    """What an adapter adds to all weights."""
    layers = [module for module in model.modules() if hasattr(module, "get_delta_weight")]
    return torch.cat([layer.get_delta_weight(adapter).detach().flatten() for layer in layers]).clone()
