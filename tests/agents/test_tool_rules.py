"""Judging and distilling episodes of tools by rule: on a small shop, and the whole chain on real files."""

from collections.abc import Callable
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.agents import experts
from tutelage.agents.distiller import distil
from tutelage.agents.experts.page import Advice, View
from tutelage.agents.extraction import extract
from tutelage.agents.graph import run_episodes
from tutelage.agents.judge import judge, judge_many
from tutelage.agents.llm_policy import LLMPolicy
from tutelage.agents.mistakes import Mistaken
from tutelage.agents.tool_rules import general
from tutelage.config import ActConfig
from tutelage.environments.base import ActionRefused, Outcome
from tutelage.environments.files import Files
from tutelage.environments.tools import NOTHING_YET, ToolEnvironment
from tutelage.experience import IN_USE, Guardrail, Recall, Skill, Sticker
from tutelage.llm import LLM
from tutelage.patterns import matches
from tutelage.tools import meaning, write_call
from tutelage.types import Cause, Split, Task, Tool, Trajectory, Verdict

GOAL = 'Sell "lamp" for 12 to Ana Lima.'
TWICE = 'Sell "lamp" and "sofa" for 12 to Ana Lima.'
PRICED, SOLD = 'price({"item": "lamp", "amount": 12})', 'sell({"to": "Ana Lima", "receipt": "R-7"})'
TOOLS = (
    Tool(
        name="price",
        parameters={
            "type": "object",
            "properties": {"item": {"type": "string"}, "amount": {"type": "integer"}, "note": {"type": "string"}},
            "required": ["item"],
        },
    ),
    Tool(name="sell", parameters={"type": "object", "properties": {"to": {}, "receipt": {}}, "required": ["to"]}),
    Tool(name="show", parameters={"type": "object", "properties": {"item": {}}, "required": ["item"]}),
    Tool(name="done"),
)


Play = Callable[..., Trajectory]


class Shop(ToolEnvironment):
    """Price it, sell it to the right one on the receipt that pricing printed, and say so."""

    name: ClassVar[str] = "shop"
    intro: ClassVar[str] = "You sell."

    @classmethod
    def families(cls) -> tuple[str, ...]:
        return ("sell",)

    def start(self, task: Task) -> tuple[str, str]:
        self.offer(TOOLS)
        self.price: Any = None
        self.sold: Any = None
        return GOAL, NOTHING_YET

    def invoke(self, name: str, arguments: dict[str, Any]) -> Outcome:
        if name == "done":
            solved = self.price == 12 and self.sold == {"to": "Ana Lima", "receipt": "R-7"}
            return Outcome("Over.", float(solved), terminated=True)
        if name == "price" and arguments["item"] == "lamp":
            self.price = arguments.get("amount")
            return Outcome(f'"lamp" costs {self.price} now.\nThe receipt is R-7.')
        if name == "sell":
            self.sold = arguments
            return Outcome(f"Sold to {arguments['to']}.\nAction: done()\nStep 1")
        if name == "show":
            return Outcome("A lamp.")
        raise ActionRefused("There is no such thing.")


def advise(view: View) -> Advice:
    if view.observations[-1].startswith("Sold to Ana Lima."):
        return Advice((SOLD,) if SOLD not in view.actions else ("done()",))
    priced = any("costs 12 now" in observation for observation in view.observations)
    return Advice((SOLD,) if priced else (PRICED,))


@pytest.fixture
def llm(monkeypatch: pytest.MonkeyPatch) -> LLM:
    monkeypatch.setitem(experts.BUILTIN, "shop", f"{__name__}:advise")
    return LLM("expert/shop", role="distiller")


@pytest.fixture
def play(script: Any) -> Play:
    def play(*actions: str) -> Trajectory:
        act = ActConfig(width=1, max_steps=len(actions))
        return run_episodes(Shop.tasks(Split.TRAIN), script(*actions), lambda _: Shop(), act=act)[0]

    return play


def test_a_success_gives_a_sticker_and_a_skill_without_its_values(play: Play, llm: LLM) -> None:
    episode = play(PRICED, SOLD, "done()")
    verdict = judge(episode, llm)
    assert (episode.success, verdict.successful, verdict.cited) == (True, True, ())
    (sticker, skill), rejections = distil(episode, verdict, (), llm)
    assert not rejections
    assert sticker.content == Sticker(
        conditions=(
            'The goal reads: Sell "{text}" for {number} to {name}.',
            "The goal names 1 text.",
            "The goal names 1 number.",
            "The goal names 1 name.",
            f"At first the result reads: {NOTHING_YET}",
        ),
        question='Which calls to price, sell, done fulfil: Sell "{text}" for {number} to {name}.',
    )
    assert skill.content == Skill(
        preconditions=('The goal reads: Sell "{text}" for {number} to {name}.',),
        procedure=('price(item="{goal}", amount={goal})', 'sell(to="{goal}", receipt="{other}")', "done()"),
        verification=("Before the last call the result reads: Sold to {goal}.", "done() ends the task."),
    )


@pytest.mark.parametrize(
    ("actions", "trigger", "forbidden"),
    [
        (["done()"], NOTHING_YET, "done()"),
        ([PRICED, "done()"], '"{goal}" costs {goal} now.', "done()"),
        ([PRICED, PRICED, "done()"], '"{goal}" costs {goal} now.', 'price(item="{goal}", amount={goal})'),
        (
            ['price({"item": "lamp", "amount": 13, "note": "12"})', "done()"],
            NOTHING_YET,
            "price(*, amount={other}, note=*)",
        ),
        (['price({"amount": 12, "item": "a \\"l\\""})', "done()"], NOTHING_YET, 'price(*, item="{other}")'),
        (['price({"item": "lamp"})', "done()"], NOTHING_YET, 'price(item="{goal}")'),
        (['show({"item": "lamp"})', "done()"], NOTHING_YET, 'show(item="{goal}")'),
        (
            [PRICED, 'sell({"to": "Bob", "receipt": "R-7"})', "done()"],
            '"{goal}" costs {goal} now.',
            'sell(to="{other}", receipt=*)',
        ),
    ],
)
def test_a_mistake_gives_a_guardrail(play: Play, llm: LLM, actions: list[str], trigger: str, forbidden: str) -> None:
    episode = play(*actions)
    verdict = judge(episode, llm)
    assert (episode.success, verdict.successful) == (False, False)
    found, _ = distil(episode, verdict, (), llm)
    rules = [(item.content.trigger, item.content.forbidden) for item in found if isinstance(item.content, Guardrail)]
    assert ((trigger,), forbidden) in rules


def test_a_mistake_put_right_does_not_fail_the_verdict_but_is_no_procedure(play: Play, llm: LLM) -> None:
    episode = play('price({"item": "lamp", "amount": 13})', PRICED, SOLD, "done({})")
    verdict = judge(episode, llm)
    assert (episode.success, verdict.successful, verdict.cited) == (True, True, (0,))
    experiences, (rejection,) = distil(episode, verdict, (), llm)
    assert not experiences
    assert "detour" in rejection.detail


def test_a_call_that_another_value_of_the_goal_may_need_is_not_forbidden(play: Play, llm: LLM) -> None:
    episode = play(PRICED, PRICED, "done()").model_copy(update={"goal": TWICE})
    experiences, _ = distil(episode, judge(episode, llm), (), llm)
    assert [item.content.forbidden for item in experiences if isinstance(item.content, Guardrail)] == ["done()"]


def test_what_the_tools_refuse_anyway_needs_no_guardrail(play: Play, llm: LLM) -> None:
    episode = play("price({})", PRICED, 'sing({"a": 1})')
    verdict = judge(episode, llm)
    assert (verdict.successful, verdict.cited) == (False, (0, 2))
    experiences, (rejection,) = distil(episode, verdict, (), llm)
    assert not experiences
    assert "cannot be said" in rejection.detail


def test_without_an_expert_successes_teach_and_failures_do_not(
    play: Play,
) -> None:
    llm = LLM("expert/toy", role="distiller")
    good, bad = play(PRICED, SOLD, "done()"), play("done()")
    verdicts = [judge(episode, llm) for episode in (good, bad)]
    assert {(item.successful, item.cited) for item in verdicts} == {(False, ())}
    assert all("no scripted expert for this environment" in item.reason for item in verdicts)
    experiences, _ = distil(good, verdicts[0], (), llm)
    assert [item.kind for item in experiences] == ["sticker", "skill"]
    assert distil(bad, verdicts[1], (), llm)[0] == []


@pytest.mark.parametrize(
    ("call", "pattern"),
    [
        ('f({"path": "docs/a.txt"})', 'f(path="{goal}/{other}")'),
        ('f({"text": "say \\"hi\\""})', 'f(text="{goal}")'),
        ('f({"text": "one\\ntwo\\nlamp"})', 'f(text="{other}\\nlamp")'),
        (
            'f({"sql": "SELECT COUNT(*) FROM shop WHERE name = \'Ana Lima\' AND id = 7 LIMIT 1"})',
            "f(sql=\"SELECT COUNT(*) FROM shop WHERE name = '{goal}' AND {other} = {other} LIMIT 1\")",
        ),
        ('f({"order": "desc", "all": true, "ids": [12, 7], "x": {"a": 1}})', None),
        ('f({"glob": "**"})', 'f(glob="{other}")'),
        ("f({})", "f()"),
        ('f("a")', ""),
    ],
)
def test_calls_with_slots(call: str, pattern: str | None) -> None:
    goal = 'Put \'say "hi"\' of Ana Lima into "docs", 12 times.'
    expected = 'f(order="desc", all=true, ids=[{goal}, {other}], x={*})' if pattern is None else pattern
    assert general(call, goal, ["one\ntwo", "id: 7", "a.txt"]) == expected


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=5,
)


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(st.text("abc_", min_size=1), json_values, max_size=4), st.text(max_size=40), st.text(max_size=40)
)
def test_a_call_with_slots_still_names_the_call(arguments: dict[str, Any], goal: str, seen: str) -> None:
    action = write_call("f", arguments)
    assert matches(general(action, goal, [seen]), meaning(action), goal)


def test_the_whole_chain_on_files(full_counts: bool) -> None:
    """Demonstrations and mistakes give every kind; the guardrails then stop mistakes and nothing that is right."""
    llm, act, scale = LLM("expert/files", role="teacher"), ActConfig(width=8), 2 if full_counts else 1
    teacher = LLMPolicy(llm)

    def run(policy: Any, start: int, count: int, memory: Any = None) -> list[Trajectory]:
        tasks = Files.tasks(Split.TRAIN, count=count * scale, start=start)
        return run_episodes(tasks, policy, lambda _: Files(), act=act, memory=memory)

    episodes = run(teacher, 0, 2) + run(Mistaken(teacher, rate=0.5, seed=1), 100, 4)
    verdicts = {item.trajectory: item for item in judge_many(episodes, llm) if isinstance(item, Verdict)}
    found = extract(episodes, verdicts, distiller_llm=llm)
    assert found.funnel["judge agrees"] == found.funnel["judged"] == len(episodes)
    assert all(item.status in IN_USE for item in found.experiences)
    for kind in ("sticker", "skill"):
        assert {item.family for item in found.experiences if item.kind == kind} == set(Files.families())
    rules = [item for item in found.experiences if item.kind == "guardrail"]
    assert len({item.family for item in rules}) > len(Files.families()) // 2

    class Rules:
        def recall(self, task: Task, goal: str, observation: str) -> Recall:
            return Recall(guardrails=tuple(item for item in rules if item.family == task.family))

    without, guarded = (run(Mistaken(teacher, rate=0.5, seed=2), 500, 3, memory) for memory in (None, Rules()))
    blocked = [step for item in guarded for step in item.steps if step.blocked_by]
    assert blocked
    assert all(step.diagnosis.cause is Cause.BLOCKED for step in blocked)
    assert sum(item.success for item in guarded) > sum(item.success for item in without)
    assert all(item.success for item in run(teacher, 800, 1, Rules()))
