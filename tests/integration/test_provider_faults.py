"""Long random sequences of everything that providers do wrong, from many threads: nothing is lost or uncounted."""

import json
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import Any

import pytest
from pydantic import BaseModel

from tutelage.agents.graph import run_episodes
from tutelage.agents.llm_policy import LLMPolicy
from tutelage.config import ActConfig, BudgetConfig
from tutelage.environments.files import Files
from tutelage.errors import BudgetSpent, PolicyFailed, TutelageError
from tutelage.llm import LLM, REPAIRS, Answer, Request
from tutelage.types import Ending, Message, Split
from tutelage.usage import UsageLog

pytestmark = pytest.mark.filterwarnings("ignore:Pydantic serializer")

MODELS = ("openai/local-model", "anthropic/claude-sonnet-4-5")
ROLES = ("teacher", "judge", "distiller", "designer")
RETRIES, CONCURRENCY = 2, 4
TIMEOUT = 0.7
"""Seconds; only hung and slow answers take that long."""
TOOL = {"type": "function", "function": {"name": "read", "parameters": {"type": "object", "properties": {}}}}


class Number(BaseModel):
    number: int


@pytest.fixture(autouse=True)
def ready(misbehaving: Any) -> None:
    """LiteLLM loads parts of itself with the first calls, which takes longer than those of the test may."""
    for model in MODELS:
        LLM(model, role="teacher", timeout=120).answer_many([Request([{"role": "user", "content": "x"}], [TOOL])])
    misbehaving.play()


def faults(names: tuple[str, ...], seed: int) -> Iterator[str]:
    """Half of them none; endless."""
    random = Random(seed)
    while True:
        yield "fine" if random.random() < 0.5 else random.choice(names)


def llm(role: str, usage: UsageLog, *, model: str, **more: Any) -> LLM:
    options = {"retries": RETRIES, "backoff": 0.01, "timeout": TIMEOUT, "concurrency": CONCURRENCY}
    return LLM(model, role=role, usage=usage, **{**options, **more})


def settled(misbehaving: Any, usage: UsageLog) -> int:
    """Requests that arrived, once those that were given up before they were sent have arrived too."""
    deadline = time.monotonic() + 60
    while len(misbehaving.seen) < usage.total().calls and time.monotonic() < deadline:
        time.sleep(0.05)
    return len(misbehaving.seen)


def say(text: str) -> str:
    return 'Well, {so}: {"number": 4} I hope.' if "number" in text or "schema" in text else f"you said {text}"


def asked_text(body: dict[str, Any]) -> str:
    """The text of a request's first user message, which names the call it belongs to."""
    content = next(message["content"] for message in body["messages"] if message["role"] == "user")
    return content if isinstance(content, str) else str(content[0]["text"])


def ask_all(misbehaving: Any, usage: UsageLog, count: int, **more: Any) -> list[Any]:
    """`count` calls of all kinds from as many threads as there are roles, two of them per provider."""

    def work(place: int) -> list[Any]:
        role, model = ROLES[place], MODELS[place % 2]
        mine = [number for number in range(count) if number % len(ROLES) == place]
        asker = llm(role, usage, model=model, **more)
        plain, tools, fitting = mine[0::3], mine[1::3], mine[2::3]
        return [
            *asker.answer_many([Request([{"role": "user", "content": f"text {n}"}]) for n in plain]),
            *asker.answer_many([Request([{"role": "user", "content": f"tools {n}"}], [TOOL]) for n in tools]),
            *asker.structured_many([[Message(role="user", content=f"number {n}")] for n in fitting], Number),
        ]

    with ThreadPoolExecutor(len(ROLES)) as pool:
        return [result for results in pool.map(work, range(len(ROLES))) for result in results]


def test_every_call_ends_in_an_answer_or_one_line_and_is_counted(misbehaving: Any, full_counts: bool) -> None:
    count = 1000 if full_counts else 50
    usage = UsageLog()
    misbehaving.say = say
    misbehaving.play(faults(misbehaving.faults, seed=1))
    results = ask_all(misbehaving, usage, count)
    assert len(results) == count
    failed = [result for result in results if isinstance(result, TutelageError)]
    for result in results:
        assert isinstance(result, Answer | Number | PolicyFailed), result
    for error in failed:
        assert "\n" not in str(error)
        assert str(error).startswith(MODELS)
    assert 0 < len(failed) < count * 0.6
    assert settled(misbehaving, usage) == usage.total().calls
    met = {fault for fault, _ in misbehaving.seen}
    assert len(met) > len(misbehaving.faults) * (0.9 if full_counts else 0.3)
    attempts = Counter(asked_text(body) for _, body in misbehaving.seen)
    for text, made in attempts.items():
        # One more round of attempts where a schema was refused, whatever it was refused for.
        rounds = 1 + REPAIRS + (1 + REPAIRS) if text.startswith("number") else 1
        assert made <= rounds * (1 + RETRIES), text
    print(f"\n{count} calls, {len(misbehaving.seen)} requests, {len(failed)} failed, {len(met)} kinds of fault")


def test_a_budget_holds_whatever_happens(misbehaving: Any) -> None:
    usage = UsageLog()
    misbehaving.say = say
    misbehaving.play(faults(misbehaving.faults, seed=2))
    results = ask_all(misbehaving, usage, 60, budget=BudgetConfig(calls=20))
    assert settled(misbehaving, usage) == usage.total().calls == 20
    assert sum(isinstance(result, BudgetSpent) for result in results) > 60 - 20 - 1

    usage = UsageLog()
    misbehaving.play(faults(misbehaving.faults, seed=3))
    results = ask_all(misbehaving, usage, 60, budget=BudgetConfig(tokens=150))
    in_flight = len(MODELS) * CONCURRENCY
    assert 150 <= usage.total().tokens <= 150 + in_flight * 40, "an answer costs 15, one without usage is estimated"
    assert any(isinstance(result, BudgetSpent) for result in results)
    assert settled(misbehaving, usage) == usage.total().calls


@pytest.mark.parametrize("model", MODELS)
def test_no_trajectory_is_lost(misbehaving: Any, full_counts: bool, model: str) -> None:
    tasks = Files.tasks(Split.TRAIN, count=10 if full_counts else 1)
    usage, delivered = UsageLog(), []
    misbehaving.say = lambda text: "I look around.\nlist({})"
    misbehaving.play(["refusal", *["fine"] * 5, *_some(misbehaving.faults)])
    policy = LLMPolicy(llm("teacher", usage, model=model))
    act = ActConfig(width=CONCURRENCY, max_steps=3, stall_after=3)
    found = run_episodes(
        tasks, policy, lambda _: Files(), act=act, on_finished=lambda place, trajectory: delivered.append(place)
    )
    assert [trajectory.task.id for trajectory in found] == [task.id for task in tasks]
    assert sorted(delivered) == list(range(len(tasks)))
    assert settled(misbehaving, usage) == usage.total().calls
    endings = Counter(trajectory.ending for trajectory in found)
    assert set(endings) <= {Ending.POLICY_ERROR, Ending.STEP_LIMIT, Ending.STALLED, Ending.FAILED}
    assert endings[Ending.POLICY_ERROR] > 0
    for trajectory in found:
        assert bool(trajectory.error) is (trajectory.ending is Ending.POLICY_ERROR)
        assert "\n" not in trajectory.error
        json.loads(trajectory.model_dump_json())


def _some(names: tuple[str, ...]) -> list[str]:
    source = faults(names, seed=4)
    return [next(source) for _ in range(2000)]
