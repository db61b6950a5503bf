"""Old log-probabilities of stripped episodes are those of the prompt that is trained on."""

import pytest
import torch

from tutelage.experience import Recall
from tutelage.stage_config import SdpoConfig
from tutelage.training import sdpo, weights
from tutelage.training.privileged import Privileged
from tutelage.training.rollout import Rollouts
from tutelage.training.stripping import rescored
from tutelage.types import Shown, Tokens

TURNS = (
    Tokens(prompt=(5, 6, 7, 8), sampled=(9, 10, 2), logprobs=(0.0, 0.0, 0.0)),
    Tokens(prompt=(11, 12), sampled=(13,), logprobs=(0.0,)),
)


def expected(model, temperature):
    ids = [5, 6, 7, 8, 9, 10, 2, 11, 12, 13]
    logprobs = (model(torch.tensor([ids])).logits[0] / temperature).log_softmax(-1)
    return [logprobs[place - 1, ids[place]].item() for place in (4, 5, 6, 9)]


def test_log_probabilities_are_those_of_the_model_at_the_sampling_temperature():
    model, _ = weights.load("tiny")
    model.train()
    first, second = rescored(TURNS, model, temperature=0.7)
    assert (first.prompt, first.sampled) == (TURNS[0].prompt, TURNS[0].sampled)
    assert [*first.logprobs, *second.logprobs] == pytest.approx(expected(model, 0.7), abs=1e-5)
    assert model.training


def test_with_an_adapter_it_is_the_adapted_model_that_scores():
    from peft import LoraConfig, get_peft_model

    model, _ = weights.load("tiny")
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
    adapted.eval()
    first, second = rescored(TURNS, adapted, temperature=1.0)
    found = [*first.logprobs, *second.logprobs]
    assert found == pytest.approx(expected(adapted, 1.0), abs=1e-5)
    with adapted.disable_adapter():
        assert found != pytest.approx(expected(adapted, 1.0), abs=1e-3)


class Memory:
    """Recalls one experience, of any task."""

    def recall(self, task, goal, observation):
        return Recall(shown=(Shown(id="exp_1", version=1, text="Mind the zebra."),))


def test_sdpo_begins_at_ratio_one_where_experiences_were_stripped(stage_context):
    model, tokenizer = weights.load("tiny")
    context = stage_context(memory=Memory())
    stage = SdpoConfig(batch_size=4, group_size=2, temperature=0.8, with_memory=0.5, withdraw=False)
    rollouts = Rollouts(stage, context, tokenizer)
    trainer = sdpo.make_trainer(stage, context, model, tokenizer, rollouts, Privileged(stage, None, tokenizer))
    trainer.model.train()
    rows = [trainer.train_dataset[index // 2] for index in range(4)]
    inputs = trainer._prepare_training_batch(rows)
    assert sum(episode.stripped for episode in rollouts.batches[0]) == 2
    logits = trainer.logits_at(model, inputs["prompt_ids"], inputs["prompt_mask"], inputs["student_positions"])
    now = logits.log_softmax(-1).gather(-1, inputs["completion_ids"][..., None])[..., 0]
    old, mask = inputs["old_per_token_logps"], inputs["completion_mask"]
    assert ((now - old) * mask).abs().max() < 1e-4
    one = next(episode for episode in rollouts.batches[0] if episode.stripped)
    played = [value for step in one.trajectory.steps for value in step.tokens.logprobs]
    assert played != pytest.approx([value for turn in one.turns for value in turn.logprobs], abs=0.01)
