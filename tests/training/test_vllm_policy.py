"""What is asked of vLLM and read from its answers; vLLM itself needs a GPU, so a model here stands behind its types."""

import random
from collections.abc import Iterable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from tutelage.training import weights
from tutelage.training.policy import StudentPolicy
from tutelage.training.token_policy import SEEDS, Asked, Sampled
from tutelage.training.vllm_policy import Engine, VllmPolicy, _own_randomness, sampled, sampling
from tutelage.types import Context, Message

CONTEXTS = [
    Context(f"k{n}", (Message(role="system", content="Act."), Message(role="user", content="Go on. " * n)), seed=n)
    for n in range(1, 4)
]


def output(ids: Sequence[int], logprobs: Sequence[float]) -> Any:
    """As `vllm.RequestOutput` with ``logprobs=0``: per place a dict of the sampled token alone."""
    by_token = [{token: SimpleNamespace(logprob=value, rank=1)} for token, value in zip(ids, logprobs, strict=True)]
    return SimpleNamespace(outputs=[SimpleNamespace(token_ids=list(ids), logprobs=by_token, finish_reason="stop")])


class HereEngine(Engine):
    """The `tiny` model with vLLM's three calls; greedy."""

    def __init__(self) -> None:
        self.model = weights.load("tiny")[0]
        self.holder, self.loaded = None, 0

    def load(self, named: Iterable[tuple[str, torch.Tensor]], holder: object) -> None:
        state = self.model.state_dict()
        for name, tensor in named:
            state[name].copy_(tensor)
        self.holder, self.loaded = holder, self.loaded + 1

    def generate(self, prompts: Sequence[Sequence[int]], params: Sequence[dict[str, Any]]) -> list[Any]:
        return [self._one(list(ids), each) for ids, each in zip(prompts, params, strict=True)]

    def _one(self, ids: list[int], params: dict[str, Any]) -> Any:
        assert params["temperature"] == 0
        made = self.model.generate(
            torch.tensor([ids]),
            max_new_tokens=params["max_tokens"],
            do_sample=False,
            eos_token_id=params["stop_token_ids"],
            output_logits=True,
            return_dict_in_generate=True,
        )
        new = made.sequences[0, len(ids) :].tolist()
        scores = torch.log_softmax(torch.cat(made.logits), -1)
        return output(new, [float(row[token]) for row, token in zip(scores, new, strict=True)])


def replies(policy: Any) -> list[tuple[str, tuple[int, ...], tuple[int, ...]]]:
    return [(reply.text, reply.tokens.prompt, reply.tokens.sampled) for reply in policy.act(CONTEXTS) if reply.tokens]


def test_what_is_asked_leaves_the_probabilities_alone() -> None:
    asked = sampling(Asked("e1", (1, 2), seed=SEEDS + 7), temperature=0.7, max_new_tokens=40, end=2)
    assert asked["stop_token_ids"] == [2]
    assert asked["ignore_eos"], "only the end of turn ends a reply"
    assert (asked["top_p"], asked["top_k"], asked["min_p"], asked["repetition_penalty"]) == (1.0, 0, 0.0, 1.0)
    assert (asked["seed"], asked["temperature"], asked["max_tokens"], asked["logprobs"]) == (7, 0.7, 40, 0)


def test_what_is_read_are_the_sampled_tokens() -> None:
    assert sampled(output([5, 9, 2], [-0.5, -1.5, -0.25])) == Sampled((5, 9, 2), (-0.5, -1.5, -0.25))


def test_replies_follow_the_weights_of_each_policy() -> None:
    model, tokenizer = weights.load("tiny")
    engine = HereEngine()
    first = VllmPolicy(engine, "tiny", tokenizer, label="student@0", max_new_tokens=6)
    expected = replies(StudentPolicy(model, tokenizer, label="student@0", max_new_tokens=6))
    assert replies(first) == expected
    torch.manual_seed(1)
    with torch.no_grad():
        model.model.embed_tokens.weight.normal_(std=0.1)
    second = VllmPolicy(engine, model, tokenizer, label="student@1", max_new_tokens=6)
    changed = replies(StudentPolicy(model, tokenizer, label="student@1", max_new_tokens=6))
    assert replies(second) == changed != expected
    first.forget([context.key for context in CONTEXTS])
    assert replies(first) == expected, "the engine had another policy's weights in between"
    loaded = engine.loaded
    first.forget([context.key for context in CONTEXTS])
    replies(first)
    assert engine.loaded == loaded, "its own are not loaded again"


def test_the_adapter_is_part_of_the_weights() -> None:
    from peft import LoraConfig, get_peft_model

    model, tokenizer = weights.load("tiny")
    adapted = get_peft_model(model, LoraConfig(target_modules="all-linear", task_type="CAUSAL_LM"))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.5, generator=torch.Generator().manual_seed(0))
    engine = HereEngine()
    policy = VllmPolicy(engine, adapted, tokenizer, label="student@0", max_new_tokens=6)
    assert replies(policy) != replies(StudentPolicy(weights.load("tiny")[0], tokenizer, label="s", max_new_tokens=6))
    ids = torch.arange(3, 20)[None]
    torch.testing.assert_close(engine.model(ids).logits, adapted(ids).logits, atol=1e-4, rtol=0)


def test_the_program_keeps_its_random_numbers() -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    def seed(value: int) -> None:
        random.seed(value)
        np.random.seed(value)
        torch.manual_seed(value)

    seed(5)
    expected = draw()
    seed(5)
    with _own_randomness():
        seed(0)  # as vLLM does
    assert draw() == expected
