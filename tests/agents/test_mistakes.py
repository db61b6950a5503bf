"""Injected mistakes: real, bounded, repeatable, and drawn from the text alone."""

from collections.abc import Sequence
from random import Random

import pytest

from tutelage.agents import mistakes
from tutelage.agents.mistakes import LIMIT, Mistaken, Situation
from tutelage.calls import Call, parse_call
from tutelage.conversation import split_reply, turn_message
from tutelage.types import Context, Message, Reply, Tokens

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
