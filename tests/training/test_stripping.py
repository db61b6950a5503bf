"""Old log-probabilities of stripped episodes are those of the prompt that is trained on."""

import pytest
import torch

from tutelage.training import weights
from tutelage.training.stripping import rescored
from tutelage.types import Tokens

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
