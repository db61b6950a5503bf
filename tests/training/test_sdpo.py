"""SDPO over whole episodes: alignment, loss and gradient, and that privileged text stays privileged."""

from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError

from tutelage.corrections import CORRECTION, Correction
from tutelage.errors import ConfigError
from tutelage.experience import Recall
from tutelage.stage_config import SdpoConfig
from tutelage.training import sdpo, weights
from tutelage.training.base import run_stage
from tutelage.training.rollout import Rollouts
from tutelage.training.sdpo_trainer import OVERRIDDEN, AdapterAverage, EpisodeSDPOTrainer, layout
from tutelage.types import Ending, Shown

CANARY = "zebra quartz"
STAGE = SdpoConfig(
    steps=2, batch_size=4, group_size=2, temperature=0.9, learning_rate=1e-3, distillation_weight=1.0, top_k=20,
    alarms={"probe_tasks": 0},
)  # fmt: skip


class Memory:
    """Recalls one experience, of any task."""

    def __init__(self, text=f"Mind the {CANARY}."):
        self.text = text

    def recall(self, task, goal, observation):
        return Recall(shown=(Shown(id="exp_1", version=1, text=self.text),))


class Won(Rollouts):
    """Real rollouts, the first of each group declared solved, as a random student solves none."""

    def __call__(self, tasks, model):
        episodes = super().__call__(tasks, model)
        for place in range(0, len(episodes), STAGE.group_size):
            won = episodes[place].trajectory.model_copy(update={"ending": Ending.SOLVED})
            episodes[place] = replace(episodes[place], trajectory=won, reward=1.0)
        return episodes


def prepared(context, tokenizer, model, memory):
    """A trainer in training mode and the batch that it made of real rollouts."""
    with torch.no_grad():  # random weights are near uniform; this one has opinions
        model.get_input_embeddings().weight.mul_(4)
    privileged = sdpo.Privileged(STAGE, memory, tokenizer)
    trainer = sdpo.make_trainer(STAGE, context, model, tokenizer, Won(STAGE, context, tokenizer), privileged)
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    with torch.no_grad():  # a teacher that has drifted from the student
        torch.manual_seed(1)
        for teacher, student in zip(trainer.teacher_model.parameters(), model.parameters(), strict=True):
            teacher.copy_(student + 0.02 * torch.randn_like(student))
    return trainer, trainer._prepare_training_batch([trainer.train_dataset[index // 2] for index in range(4)])


@pytest.fixture
def made(stage_context):
    model, tokenizer = weights.load("tiny")
    return prepared(stage_context(), tokenizer, model, Memory()), tokenizer


def gradient(loss, model):
    model.zero_grad()
    loss.backward()
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])


def reference(student, teacher, episodes):
    """The loss from its definition: one unpadded episode at a time, all logits."""
    total = torch.tensor(0.0)
    for episode in episodes:
        ids, at = layout([(turn.observation, turn.sampled) for turn in episode.turns])
        told, told_at = layout([(turn.privileged, turn.sampled) for turn in episode.turns])
        p = (student(torch.tensor([ids])).logits[0, at] / STAGE.temperature).softmax(-1)
        with torch.no_grad():
            q = (teacher(torch.tensor([told])).logits[0, told_at] / STAGE.temperature).softmax(-1)
        top = p.topk(STAGE.top_k, -1).indices
        p, q = p.gather(-1, top), q.gather(-1, top)
        p, q = (torch.cat([some, 1 - some.sum(-1, keepdim=True)], -1) for some in (p, q))
        mixed = (1 - STAGE.alpha) * p + STAGE.alpha * q
        divergence = STAGE.alpha * (q * (q / mixed).log()).sum(-1) + (1 - STAGE.alpha) * (p * (p / mixed).log()).sum(-1)
        informed = torch.tensor([float(turn.informed) for turn in episode.turns for _ in turn.sampled])
        total = total + (divergence * informed).sum() / informed.sum().clamp(min=1)
    return total / len(episodes)


def test_loss_and_gradient_equal_plain_pytorch(made):
    (trainer, batch), _ = made
    ours = trainer.compute_loss(trainer.model, batch)
    plain = reference(trainer.model, trainer.teacher_model, trainer.episodes)
    assert plain.item() > 0.001
    assert ours.item() == pytest.approx(plain.item(), rel=1e-4)
    mine, its = gradient(ours, trainer.model), gradient(plain, trainer.model)
    assert its.norm() > 0.01
    assert (mine - its).abs().max() < 1e-5


def test_the_student_scores_what_was_sampled(made):
    (trainer, batch), _ = made
    scored = trainer._compute_teacher_student_logits(trainer.model, trainer.teacher_model, batch)
    logprobs = scored.student_logits.log_softmax(-1).gather(-1, scored.completion_ids.unsqueeze(-1)).squeeze(-1)
    assert ((logprobs - batch["old_per_token_logps"]) * scored.completion_mask).abs().max() < 1e-4


def test_privileged_text_reaches_the_teacher_only(made, stage_context):
    (trainer, batch), tokenizer = made
    student = [tokenizer.decode(ids) for ids in batch["prompt_ids"]]
    teacher = [tokenizer.decode(ids) for ids in batch["teacher_input_ids"]]
    assert not any(CANARY in text or "Your next action" in text or "solved this task" in text for text in student)
    assert all(CANARY in text and "Your next action" in text for text in teacher)
    # The winner of each group demonstrates to the others, never to itself.
    assert ["solved this task" in text for text in teacher] == [False, True, False, True]
    other, changed = prepared(stage_context("b"), tokenizer, weights.load("tiny")[0], Memory("All else is different."))
    before, after = (
        made_by._compute_teacher_student_logits(made_by.model, made_by.teacher_model, inputs)
        for made_by, inputs in ((trainer, batch), (other, changed))
    )
    assert torch.equal(before.student_logits, after.student_logits)
    assert (before.teacher_logits - after.teacher_logits).abs().max() > 0.01


def corrections(trajectories):
    """Words on the second action of each episode."""
    right = 'click("r1")'
    return [
        Correction(trajectory=item.id, step=1, reply=right, words=f"Not so, {CANARY}.", author="teacher")
        for item in trajectories
    ]


@pytest.mark.parametrize("wanted", [True, False])
def test_the_teacher_is_asked_about_rollouts_only_where_the_stage_wants_it(stage_context, wanted):
    context = replace(stage_context(), correct=corrections)
    result = run_stage(STAGE.model_copy(update={"corrections": wanted, "steps": 1}), context)
    kept = context.record.items(CORRECTION)
    rollouts = context.record.trajectories(arm="sdpo")
    assert list(kept) == ([f"{item.id}/1" for item in rollouts] if wanted else [])
    assert all(body["arm"] == "sdpo" for body in kept.values())
    assert result.metrics[0][1].get("corrected") == (STAGE.batch_size if wanted else None)
    assert not any(CANARY in item.model_dump_json() for item in rollouts)


def test_the_teacher_starts_as_the_student_in_float32(stage_context):
    model, tokenizer = weights.load("tiny")
    context = stage_context()
    rollouts = Rollouts(STAGE, context, tokenizer)
    trainer = sdpo.make_trainer(STAGE, context, model, tokenizer, rollouts, sdpo.Privileged(STAGE, None, tokenizer))
    pairs = zip(trainer.teacher_model.parameters(), model.parameters(), strict=True)
    assert all(torch.equal(teacher, student) and teacher.dtype is torch.float32 for teacher, student in pairs)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_two_steps_from_end_to_end(stage_context, method):
    stage = STAGE.model_copy(update={"distillation_weight": 0.5, "micro_batch_size": 2})
    contexts = [stage_context(folder, memory=Memory(), method=method) for folder in "ab"]
    first, second = (run_stage(stage, context) for context in contexts)
    assert first.digest == second.digest == weights.digest(weights.load(str(first.folder))[0])
    assert first.digest != weights.digest(weights.load("tiny")[0])
    assert first.experiences == ("exp_1",)
    figures = {"success", "distillation_loss", "policy_loss", "informed_tokens", "gap", "entropy", "informed_feedback"}
    assert first.metrics[0][1].keys() >= figures
    kept = contexts[0].record.trajectories(arm="sdpo")
    assert first.trajectories == tuple(trajectory.id for trajectory in kept)
    assert not any(trajectory.shown or CANARY in trajectory.model_dump_json() for trajectory in kept)


def test_what_teaches_nothing_is_refused(stage_context):
    with pytest.raises(ValidationError, match="knows what the student knows"):
        SdpoConfig(experiences=False, feedback=False, sibling=False)
    assert SdpoConfig(experiences=False, feedback=False, sibling=False, corrections=True)
    with pytest.raises(ConfigError, match="top_k = 5000 is more than the student's 4096 tokens"):
        run_stage(STAGE.model_copy(update={"top_k": 5000}), stage_context())


def test_overridden_names_exist_in_trl():
    assert all(callable(getattr(EpisodeSDPOTrainer.__base__, name)) for name in OVERRIDDEN)
    assert callable(AdapterAverage.__base__._initialize_teacher_adapter)
