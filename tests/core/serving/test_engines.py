"""Replies of a batch are those that the model gives alone, whoever comes and goes beside them."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny_students import varied

from tutelage.errors import ConfigError, RequestRefused
from tutelage.serving import student_engine
from tutelage.serving.batching import PREFILL
from tutelage.serving.engine_transformers import TransformersEngine, check_kind
from tutelage.serving.student_engine import EngineFailed
from tutelage.serving.types import ChatMessage, Piece, Prompt, Sampling
from tutelage.training.chat import ChatEncoder

LIMIT = 12
Made = Callable[..., TransformersEngine]


@pytest.fixture(scope="module")
def student() -> Any:
    return varied(1)


@pytest.fixture
def make(student: Any) -> Iterator[Made]:
    """``make(batch=…)`` is an engine that is closed when the test ends."""
    engines = []

    def made(batch: int = 4, max_length: int = 2000) -> TransformersEngine:
        engines.append(TransformersEngine("student@1", *student, batch=batch, max_length=max_length))
        return engines[-1]

    yield made
    for engine in engines:
        asyncio.run(engine.close())


def asking(text: str, *more: ChatMessage, **sampling: Any) -> Prompt:
    messages = (ChatMessage("system", "You help."), ChatMessage("user", text), *more)
    return Prompt(messages, Sampling(**{"max_new_tokens": LIMIT, **sampling}))


def numbered(number: int, **sampling: Any) -> Prompt:
    return asking(f"Question {number}: " + "what is it " * (7 * number % 40 + 1), **sampling)


async def whole(engine: TransformersEngine, prompt: Prompt) -> tuple[str, Piece]:
    """The text of a reply, and its last piece."""
    pieces = [piece async for piece in engine.generate(prompt)]
    assert [piece.finish for piece in pieces[:-1]] == [None] * (len(pieces) - 1)
    return "".join(piece.text for piece in pieces), pieces[-1]


async def all_of(engine: TransformersEngine, prompts: list[Prompt]) -> list[str]:
    return [text for text, _ in await asyncio.gather(*(whole(engine, prompt) for prompt in prompts))]


def alone(student: Any, prompt: Prompt) -> str:
    """The greedy reply by transformers' own generation, unbatched."""
    model, tokenizer = student
    encoder = ChatEncoder(tokenizer)
    ids = student_engine.render(encoder, prompt.messages, (), 4000)
    made = model.generate(
        torch.tensor([ids]), max_new_tokens=prompt.sampling.max_new_tokens, do_sample=False, eos_token_id=encoder.end
    )[0].tolist()[len(ids) :]
    return str(tokenizer.decode(made, skip_special_tokens=True))


def test_replies_in_company_are_those_of_the_model_alone(make: Made, student: Any) -> None:
    engine = make(batch=4)
    prompts = [numbered(number, max_new_tokens=3 + number % 10) for number in range(14)]
    prompts.append(asking("long " * (PREFILL + 60)))  # read in two parts, with others in between
    replies = asyncio.run(all_of(engine, prompts))
    assert replies == [alone(student, prompt) for prompt in prompts]
    assert len(set(replies)) > 10
    # Conversations go on from what the rows have kept, in another order and beside others.
    further = [
        replace(prompt, messages=(*prompt.messages, ChatMessage("assistant", reply), ChatMessage("user", "And then?")))
        for prompt, reply in zip(prompts, replies, strict=True)
    ][::-1]
    assert asyncio.run(all_of(engine, further)) == [alone(student, prompt) for prompt in further]


def test_a_prompt_that_takes_long_to_read_holds_up_nobody(make: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, go_on, render = make(), threading.Event(), student_engine.render

    def slow(*given: Any) -> list[int]:
        assert go_on.wait(5), "nobody else had a turn"
        return render(*given)

    monkeypatch.setattr(student_engine, "render", slow)

    async def run() -> str:
        replying = asyncio.create_task(whole(engine, numbered(1)))
        await asyncio.sleep(0.05)
        go_on.set()
        return (await replying)[0]

    assert asyncio.run(run())


def test_a_seed_gives_the_same_reply_in_any_company(make: Made) -> None:
    engine, prompt = make(), asking("Go on", temperature=1.5, seed=5)
    others = [numbered(number, temperature=1.0) for number in range(6)]
    (first, _), (second, *_), (third, _) = (
        asyncio.run(whole(engine, prompt)),
        asyncio.run(all_of(engine, [prompt, *others])),
        asyncio.run(whole(engine, asking("Go on", temperature=1.5, seed=6))),
    )
    assert first == second != third


def test_a_small_nucleus_or_temperature_is_greedy(make: Made, student: Any) -> None:
    engine = make()
    for sampling in ({"temperature": 1.0, "top_p": 1e-9}, {"temperature": 1e-300}):
        assert asyncio.run(whole(engine, asking("Go on", **sampling)))[0] == alone(student, asking("Go on"))


def test_sampling_follows_the_models_chances(make: Made, student: Any) -> None:
    """First tokens of 300 seeds against the chances of the five likeliest, and none outside of the nucleus."""
    model, tokenizer = student
    encoder, prompt = ChatEncoder(tokenizer), asking("Go on", max_new_tokens=1, temperature=2.0)
    with torch.inference_mode():
        logits = model(torch.tensor([student_engine.render(encoder, prompt.messages, (), 4000)])).logits[0, -1].double()
    chances = torch.softmax(logits / 2.0, -1)

    def texts(top_p: float) -> list[str]:
        engine = make(batch=16)
        seeds = [replace(prompt, sampling=replace(prompt.sampling, seed=seed, top_p=top_p)) for seed in range(300)]
        return asyncio.run(all_of(engine, seeds))

    drawn = texts(1.0)
    for token in chances.topk(5).indices.tolist():
        expected, text = float(chances[token]), tokenizer.decode([token], skip_special_tokens=True)
        assert abs(drawn.count(text) / 300 - expected) < 4 * (expected * (1 - expected) / 300) ** 0.5 + 0.01
    best = chances.sort(descending=True)
    kept = int((best.values.cumsum(-1) - best.values < 0.5).sum())
    allowed = {tokenizer.decode([token], skip_special_tokens=True) for token in best.indices[:kept].tolist()}
    assert set(texts(0.5)) <= allowed
    assert len(set(drawn) - allowed) > 0


def test_how_a_reply_ends(make: Made, student: Any) -> None:
    engine = make()
    prompt = next(
        prompt for number in range(60) if len(alone(student, prompt := numbered(number, max_new_tokens=40))) > 20
    )
    text = alone(student, prompt)
    stop = text[8:11]
    cut, last = asyncio.run(whole(engine, replace(prompt, sampling=replace(prompt.sampling, stop=("nothing", stop)))))
    assert (cut, last.finish) == (text[: text.index(stop)], "stop")
    short, last = asyncio.run(whole(engine, replace(prompt, sampling=replace(prompt.sampling, max_new_tokens=4))))
    assert last.finish == "length"
    assert last.tokens is not None
    assert (last.tokens.completion, text.startswith(short)) == (4, True)
    ended = next(
        last
        for number in range(200)
        if (last := asyncio.run(whole(engine, numbered(number, max_new_tokens=60)))[1]).finish == "stop"
    )
    assert ended.tokens is not None
    assert ended.tokens.completion < 60


def test_a_context_bounds_prompt_and_reply(make: Made, student: Any) -> None:
    engine, prompt = make(max_length=100), endless(student)
    text, last = asyncio.run(whole(engine, prompt))
    assert last.tokens is not None
    assert (last.finish, alone(student, prompt).startswith(text)) == ("length", True)
    assert last.tokens.prompt + last.tokens.completion == 100
    for refused in (asking("word " * 100), asking("x" * 50_000), asking("Go on", ChatMessage("assistant", "I do"))):
        with pytest.raises(RequestRefused):
            asyncio.run(whole(engine, refused))


def test_whoever_leaves_makes_room(make: Made, student: Any) -> None:
    """One row, taken by a reply that would be long: its caller goes, and the next one is answered."""
    engine = make(batch=1)

    async def run() -> tuple[str, bool]:
        leaving = engine.generate(endless(student))
        async with closing(leaving):
            await anext(leaving)
            waiting = asyncio.create_task(whole(engine, numbered(3)))
            await asyncio.sleep(0)
        text, _ = await waiting
        return text, engine._batcher._slots[0].asked is None

    text, free = asyncio.run(run())
    assert (text, free) == (alone(student, numbered(3)), True)


def endless(student: Any) -> Prompt:
    return next(
        prompt for number in range(100) if len(alone(student, prompt := numbered(number, max_new_tokens=400))) > 300
    )


def closing(pieces: AsyncIterator[Piece]) -> Any:
    return aclosing(pieces)  # type: ignore[type-var]


def test_a_failure_costs_those_under_way_and_nobody_else(make: Made, student: Any) -> None:
    model, engine = student[0], make(batch=2)

    def fail(*_: Any) -> None:
        hook.remove()
        raise RuntimeError("no memory")

    hook = model.register_forward_pre_hook(fail)
    with pytest.raises(EngineFailed, match="log"):
        asyncio.run(whole(engine, numbered(1)))
    assert asyncio.run(whole(engine, numbered(1)))[0] == alone(student, numbered(1))


def test_weights_that_are_no_numbers_do_not_pass_the_check() -> None:
    model, tokenizer = varied(2)

    async def run(check: Callable[[], Awaitable[None]], close: Callable[[], Awaitable[None]]) -> None:
        try:
            await check()
        finally:
            await close()

    with torch.no_grad():
        model.model.norm.weight.fill_(float("nan"))
    engine = TransformersEngine("student@2", model, tokenizer, batch=1, max_length=100)
    with pytest.raises(EngineFailed, match="NaN"):
        asyncio.run(run(engine.check, engine.close))


def test_nothing_is_answered_after_closing(make: Made) -> None:
    engine = make()

    async def run() -> None:
        under_way = asyncio.create_task(whole(engine, numbered(1, max_new_tokens=1000)))
        await asyncio.sleep(0)
        await engine.close()
        await under_way

    with pytest.raises(EngineFailed, match="unloaded"):
        asyncio.run(run())
    with pytest.raises(EngineFailed, match="unloaded"):
        asyncio.run(whole(engine, numbered(1)))


def test_a_model_with_windows_is_refused() -> None:
    from transformers import MistralConfig, Qwen2Config

    with pytest.raises(ConfigError, match="upstream"):
        check_kind(MistralConfig(sliding_window=4096))
    check_kind(Qwen2Config())
