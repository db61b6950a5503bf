"""What every policy must do: one reply per context in order, a label, and forgetting."""

from collections.abc import Callable

import pytest

from tutelage.agents.llm_policy import LLMPolicy
from tutelage.agents.mistakes import Mistaken
from tutelage.conversation import turn_message
from tutelage.llm import LLM
from tutelage.training import weights
from tutelage.training.policy import StudentPolicy
from tutelage.types import Context, Message, Policy, Reply

SYSTEM = Message(role="system", content="You operate a small web page.")


def expert() -> Policy:
    return LLMPolicy(LLM("expert/miniwob", role="teacher"))


def mistaken() -> Policy:
    return Mistaken(expert(), rate=0.5, seed=0)


def student() -> Policy:
    model, tokenizer = weights.load("tiny", dtype="float32")
    return StudentPolicy(model, tokenizer, label=f"student@0 ({weights.describe('tiny')})", max_new_tokens=8)


def said(replies: list[Reply]) -> list[tuple[str, tuple[int, ...]]]:
    """What was replied, token for token; log-probabilities may differ in the last digits."""
    return [(reply.text, reply.tokens.sampled if reply.tokens else ()) for reply in replies]


def context(number: int) -> Context:
    page = f'[r{number}] button "Yes{number}"\n[r0] button "No"'
    return Context(f"k{number}", (SYSTEM, turn_message(page, goal=f'Click on the "Yes{number}" button.')), number)


@pytest.mark.parametrize("make", [expert, mistaken, student])
class TestPolicy:
    def test_label(self, make: Callable[[], Policy]) -> None:
        assert make().label.endswith(("(scripted)", "(random weights))")), "it says what it is"

    def test_one_reply_per_context_in_order(self, make: Callable[[], Policy]) -> None:
        contexts = [context(number) for number in range(1, 9)]
        together = said(make().act(contexts))
        assert len(together) == len(contexts)
        assert said(make().act(contexts[::-1])) == together[::-1], "no reply depends on its place in the batch"
        assert said([make().act([item])[0] for item in contexts]) == together, "nor on its batch"

    def test_no_contexts(self, make: Callable[[], Policy]) -> None:
        assert make().act([]) == []

    def test_forgetting_what_it_knows_and_what_it_does_not(self, make: Callable[[], Policy]) -> None:
        policy = make()
        before = said(policy.act([context(1)]))
        policy.forget(["k1", "never seen"])
        assert said(policy.act([context(1)])) == before

    def test_a_conversation_grows(self, make: Callable[[], Policy]) -> None:
        policy, first = make(), context(1)
        (reply,) = policy.act([first])
        more = (*first.messages, Message(role="assistant", content=reply.text), turn_message('[r2] button "Yes1"'))
        (later,) = policy.act([Context("k1", more, 7)])
        assert not later.error
        assert later.text
