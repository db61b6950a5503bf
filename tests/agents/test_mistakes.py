"""Injected mistakes: real, bounded, repeatable, and drawn from the text alone."""

from collections.abc import Sequence
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.agents import mistakes, tool_mistakes
from tutelage.agents.mistakes import LIMIT, Mistaken, Situation
from tutelage.agents.tool_mistakes import ToolSituation
from tutelage.calls import Call, parse_call
from tutelage.conversation import split_reply, turn_message
from tutelage.types import Context, Message, Reply, Tokens, Tool

PAGE = (
    '[r1] textbox "Name" value=""\n[r2] textbox "City" value=""\n[r3] checkbox "red" checked=false\n'
    '[r4] checkbox "blue" checked=false\n[r5] checkbox "green" checked=false\n[r6] button "Submit"'
)
GOAL = 'Fill "Ann" into Name, select red and blue, and press Submit.'
RIGHT = 'fill("r1", "Ann")'


class Right:
    label = "right (scripted)"

    def act(self, contexts: Sequence[Context]) -> list[Reply]:
        return [Reply(f"as told\n{RIGHT}", tokens=Tokens(prompt=(1,), sampled=(2,), logprobs=(-0.1,)))] * len(contexts)

    def forget(self, keys: Sequence[str]) -> None:
        self.forgotten = list(keys)


def context(turn: int = 0, key: str = "k", seed: int = 0) -> Context:
    messages = [Message(role="system", content="Act."), turn_message(PAGE, goal=GOAL)]
    for _ in range(turn):
        messages += [Message(role="assistant", content='click("r3")'), turn_message(PAGE)]
    return Context(key, tuple(messages), 1000 * seed + turn)


def action(reply: Reply) -> str:
    return split_reply(reply.text)[1]


def test_every_mistake_is_another_action_and_bounded() -> None:
    for seed in range(30):
        policy = Mistaken(Right(), rate=1.0, seed=1)
        replies = [policy.act([context(turn, seed=seed)])[0] for turn in range(6)]
        wrong = [reply for reply in replies if action(reply) != RIGHT]
        assert len(wrong) == LIMIT
        assert all(reply.tokens is None and reply.text.startswith("as told\n") for reply in wrong)
        assert replies[-1].tokens is not None


def test_same_context_same_mistake_in_any_batch() -> None:
    contexts = [context(0, key=f"k{n}", seed=n) for n in range(20)]
    together = Mistaken(Right(), rate=0.5, seed=3).act(contexts)
    policy = Mistaken(Right(), rate=0.5, seed=3)
    apart = [policy.act([item])[0] for item in reversed(contexts)][::-1]
    assert together == apart == policy.act(contexts)
    assert 4 < sum(action(reply) != RIGHT for reply in together) < 16
    assert Mistaken(Right(), rate=0.5, seed=4).act(contexts) != together


def test_kinds() -> None:
    situation, random = Situation(context(1)), Random(0)
    fill, tick, submit = (parse_call(text) for text in (RIGHT, 'click("r3")', 'click("r6")'))
    assert mistakes.wrong_target(fill, situation, random) == Call("fill", ("r2", "Ann"))
    assert mistakes.wrong_target(tick, situation, random) == Call("click", ("r5",)), "blue would be right as well"
    assert mistakes.wrong_target(submit, situation, random) is None
    assert mistakes.premature_end(fill, situation, random) == submit
    assert mistakes.premature_end(submit, situation, random) is None
    assert mistakes.altered_text(tick, situation, random) is None
    altered = mistakes.altered_text(fill, situation, random)
    assert altered is not None
    assert altered.args[0] == "r1"
    assert mistakes.repetition(fill, situation, random) == tick
    assert mistakes.repetition(fill, Situation(context(0)), random) is None
    assert mistakes.dropped_argument(fill, situation, random) == Call("fill", ("r1",))


@pytest.mark.parametrize("text", ["", "hello there", "noop()"])
def test_what_cannot_be_corrupted_stays(text: str) -> None:
    class Odd(Right):
        def act(self, contexts: Sequence[Context]) -> list[Reply]:
            return [Reply(text)] * len(contexts)

    bare = Context("k", (Message(role="system", content="Act."), turn_message("nothing", goal="Wait.")), 0)
    assert Mistaken(Odd(), rate=1.0, seed=0).act([bare]) == [Reply(text)]


def test_label_and_forget() -> None:
    inner = Right()
    policy = Mistaken(inner, rate=1.0, seed=0)
    assert policy.label == "right (scripted) + mistakes (scripted)"
    policy.forget(["k"])
    assert inner.forgotten == ["k"]


# -- tools ---------------------------------------------------------------------------------------


def tool(name: str, *required: str, **kinds: str) -> Tool:
    properties = {key: {"type": kind} for key, kind in kinds.items()}
    return Tool(name=name, parameters={"type": "object", "properties": properties, "required": list(required)})


TOOLS = (
    tool("move", "source", "target", source="string", target="string"),
    tool("copy", "source", "target", source="string", target="string", times="integer"),
    tool("list", folder="string"),
    tool("answer", "value", value="integer"),
)
MOVE = 'move({"source": "a.txt", "target": "docs/a.txt"})'


def tool_context(seed: int = 0, tools: tuple[Tool, ...] = TOOLS) -> Context:
    first = turn_message("Top folder:\nb.txt\na.txt | 41", goal='Move "a.txt" into the folder "docs".')
    told = [Message(role="assistant", content="list({})"), turn_message("notes/c.txt")]
    return Context("k", (Message(role="system", content="Act."), first, *told), seed, tools=tools)


class Mover(Right):
    def act(self, contexts: Sequence[Context]) -> list[Reply]:
        return [Reply(MOVE)] * len(contexts)


def test_kinds_for_tools() -> None:
    situation, call = ToolSituation(tool_context()), parse_call(MOVE)
    answer = parse_call('answer({"value": 12})')
    values = {str(tool_mistakes.wrong_value(call, situation, Random(seed))) for seed in range(60)}
    assert any('"source": "b.txt"' in value for value in values), "another value of the conversation"
    assert any('"target": "notes/c.txt"' in value for value in values)
    assert any('"source": "A.TXT"' in value for value in values), "a typing error"
    assert not any('"41"' in value or '"docs"' in value for value in values), "values of another kind"
    numbers = {str(tool_mistakes.wrong_value(answer, situation, Random(seed))) for seed in range(9)}
    assert numbers == {'answer({"value": 11})', 'answer({"value": 13})'}
    assert tool_mistakes.wrong_tool(call, situation, Random(0)) == Call("copy", call.args)
    assert tool_mistakes.wrong_tool(answer, situation, Random(0)) is None
    left = {str(tool_mistakes.missing_argument(call, situation, Random(seed))) for seed in range(9)}
    assert left == {'move({"source": "a.txt"})', 'move({"target": "docs/a.txt"})'}
    assert tool_mistakes.premature_end(call, situation, Random(0)) == Call("answer", ({"value": 41},))
    assert tool_mistakes.premature_end(answer, situation, Random(0)) is None
    assert tool_mistakes.premature_end(call, ToolSituation(tool_context(tools=())), Random(0)) is None
    ends = ToolSituation(tool_context(tools=(Tool(name="done"),)))
    assert str(tool_mistakes.premature_end(call, ends, Random(0))) == "done()"
    assert tool_mistakes.repeated_call(call, situation, Random(0)) == Call("list", ({},))


@pytest.mark.parametrize("tools", [TOOLS, ()])
def test_a_call_to_a_tool_goes_wrong_as_one(tools: tuple[Tool, ...]) -> None:
    contexts = [tool_context(seed, tools) for seed in range(60)]
    replies = [action(reply) for reply in Mistaken(Mover(), rate=1.0, seed=1).act(contexts)]
    wrong = [parse_call(reply) for reply in replies]
    assert MOVE not in replies
    assert {call.name for call in wrong} == ({"move", "copy", "list", "answer"} if tools else {"move", "list"})
    assert all(isinstance(call.args[0], dict) for call in wrong)
    assert replies == [action(Mistaken(Mover(), rate=1.0, seed=1).act([item])[0]) for item in contexts]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@given(st.dictionaries(st.text(max_size=6), json_values, max_size=3), st.text(max_size=60), st.integers(0, 99))
def test_any_call_can_go_wrong(arguments: dict[str, Any], result: str, seed: int) -> None:
    class Caller(Right):
        def act(self, contexts: Sequence[Context]) -> list[Reply]:
            return [Reply(str(Call("copy", (arguments,))))] * len(contexts)

    messages = (*tool_context().messages[:3], turn_message(result))
    context = Context("k", messages, seed, tools=TOOLS)
    assert parse_call(Mistaken(Caller(), rate=1.0, seed=1).act([context])[0].text)
