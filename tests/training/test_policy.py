"""The batched student says what the model says alone, and its tokens are the ones it saw."""

from collections.abc import Iterator

import pytest
import torch

from tutelage.training import weights
from tutelage.training.chat import ChatEncoder
from tutelage.training.policy import StudentPolicy, copy_weights, generation_copy
from tutelage.types import Context, Message, Reply

TURNS = 3
LIMIT = 8


def student(varied: tuple, temperature: float = 0.0, **settings: int) -> StudentPolicy:
    settings = {"max_new_tokens": LIMIT, **settings}
    return StudentPolicy(*varied, label="student@0", temperature=temperature, **settings)


def test_a_misspelt_setting_is_refused(varied: tuple) -> None:
    with pytest.raises(TypeError, match="max_new_token"):
        student(varied, max_new_token=3)


def message(role: str, content: str) -> Message:
    return Message.model_validate({"role": role, "content": content})


def opening(number: int) -> tuple[Message, ...]:
    return message("system", "You act."), message("user", f"Goal {number}: " + "do this " * (3 * number + 1))


def observation(number: int, turn: int) -> Message:
    return message("user", f"Observation {turn}: " + "word " * (5 * number))


def play(policy: StudentPolicy, order: list[list[int]]) -> dict[int, list[Reply]]:
    """Episodes by number; each entry of `order` is one batch, an episode's turns come in sequence."""
    history = {number: opening(number) for batch in order for number in batch}
    replies: dict[int, list[Reply]] = {number: [] for number in history}
    for batch in order:
        contexts = [Context(f"e{n}", history[n], seed=100 * n + len(replies[n])) for n in batch]
        for number, reply in zip(batch, policy.act(contexts), strict=True):
            turn = len(replies[number])
            replies[number].append(reply)
            history[number] += (message("assistant", reply.text), observation(number, turn))
    return replies


def alone(varied: tuple, number: int) -> Iterator[tuple[int, ...]]:
    """Greedy replies of one episode by transformers' own unpadded, uncached generation."""
    model, tokenizer = varied
    encoder = ChatEncoder(tokenizer)
    ids = encoder.first(opening(number))
    for turn in range(TURNS):
        whole = model.generate(torch.tensor([ids]), max_new_tokens=LIMIT, do_sample=False)[0].tolist()
        yield tuple(whole[len(ids) :])
        ids = whole + encoder.turn(observation(number, turn), closed=whole[-1] == encoder.end)


def sampled(replies: dict[int, list[Reply]]) -> dict[int, list[tuple[int, ...]]]:
    return {number: [reply.tokens.sampled for reply in turns if reply.tokens] for number, turns in replies.items()}


TOGETHER = [[0, 1, 2, 3]] * TURNS
ONE_BY_ONE = [[number] for number in range(4) for _ in range(TURNS)]
STAGGERED = [[3], [3, 0], [1, 0, 3], [2, 0], [1, 2], [2, 1]]


def test_greedy_equals_unpadded_generation(varied: tuple) -> None:
    replies = sampled(play(student(varied), TOGETHER))
    assert replies == {number: list(alone(varied, number)) for number in range(4)}
    assert len({len(one) for turns in replies.values() for one in turns}) > 1, "rows must end at different times"


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_the_batch_does_not_matter(varied: tuple, temperature: float) -> None:
    together, apart, mixed = (play(student(varied, temperature), order) for order in (TOGETHER, ONE_BY_ONE, STAGGERED))
    assert sampled(together) == sampled(apart) == sampled(mixed)
    for number, turns in together.items():
        for one, other in zip(turns, apart[number], strict=True):
            assert one.tokens
            assert other.tokens
            assert one.tokens.logprobs == pytest.approx(other.tokens.logprobs, abs=1e-4)


def test_tokens_are_what_the_model_saw(varied: tuple) -> None:
    model, _ = varied
    temperature = 0.8
    for turns in play(student(varied, temperature), TOGETHER).values():
        ids: list[int] = []
        for reply in turns:
            assert reply.tokens
            ids += [*reply.tokens.prompt, *reply.tokens.sampled]
            logits = model(torch.tensor([ids])).logits[0].float() / temperature
            logprobs = torch.log_softmax(logits, -1)[-len(reply.tokens.sampled) - 1 : -1]
            expected = [row[token].item() for row, token in zip(logprobs, reply.tokens.sampled, strict=True)]
            assert reply.tokens.logprobs == pytest.approx(expected, abs=1e-4)


def test_another_seed_samples_otherwise(varied: tuple) -> None:
    contexts = [Context(f"k{seed}", opening(1), seed) for seed in (1, 2, 1)]
    one, other, again = student(varied, 0.8).act(contexts)
    assert one.tokens.sampled == again.tokens.sampled
    assert one.text != other.text


def test_too_long_is_an_error_of_that_episode_only(varied: tuple) -> None:
    replies = student(varied, max_length=64).act([Context("long", opening(30), 0), Context("short", opening(0), 0)])
    assert "too long" in replies[0].error
    assert not replies[1].error


def test_a_changed_history_is_read_anew(varied: tuple) -> None:
    policy = student(varied)
    policy.act([Context("k", opening(1), 0)])
    other = (*opening(1), message("assistant", "something else"), observation(1, 0))
    assert policy.act([Context("k", other, 0)])[0].text == student(varied).act([Context("new", other, 0)])[0].text


def test_sampling_keeps_the_training_mode(varied: tuple) -> None:
    model, _ = varied
    model.train()
    student(varied).act([Context("k", opening(0), 0)])
    assert model.training
    model.eval()


@pytest.mark.parametrize("adapter", [False, True])
def test_a_copy_for_generation_follows_the_trained_model(adapter: bool) -> None:
    from peft import LoraConfig, get_peft_model

    model, _ = weights.load("tiny")
    if adapter:
        model = get_peft_model(model, LoraConfig(target_modules="all-linear", task_type="CAUSAL_LM"))
    made = generation_copy(model, torch.bfloat16 if not adapter else torch.float32)
    assert made is not model
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)), alpha=0.05)
    copy_weights(model, made)
    ids = torch.arange(3, 20)[None]
    assert made(ids).logits.float() == pytest.approx(model(ids).logits.detach(), abs=1e-4 if adapter else 0.2)
