"""The embedded expert answers through LiteLLM from the text of the request alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.agents.llm_policy import LLMPolicy
from tutelage.agents.prompts import prompt
from tutelage.agents.provider import register, role_of, view_of
from tutelage.conversation import read_turn, split_reply, turn_message
from tutelage.errors import PolicyFailed, UnknownName
from tutelage.llm import LLM
from tutelage.types import Context, Message, Shown
from tutelage.usage import UsageLog

SYSTEM = Message(role="system", content="You operate a small web page.")
FORM = '[r1] textbox "Username" value=""\n[r2] textbox "Password" value=""\n[r3] button "Login"'
GOAL = 'Enter the username "bob" and the password "x7" into the text fields and press login.'


def llm(usage: UsageLog | None = None, role: str = "teacher") -> LLM:
    return LLM("expert/miniwob", role=role, usage=usage)


def test_answers_an_episode_and_counts_tokens() -> None:
    usage = UsageLog()
    first = turn_message(FORM, goal=GOAL, shown=[Shown(id="exp_1", version=1, text="Goal: nothing")])
    text = llm(usage).complete([SYSTEM, first])
    assert split_reply(text)[1] == 'fill("r1", "bob")'
    filled = FORM.replace('value=""', 'value="bob"', 1)
    later = [SYSTEM, first, Message(role="assistant", content=text), turn_message(filled, ["a note"])]
    assert split_reply(llm(usage).complete(later))[1] == 'fill("r2", "x7")'
    total = usage.total()
    assert total.calls == 2
    assert total.prompt_tokens > 2 * len(GOAL.split())
    assert total.completion_tokens > 0
    assert (total.dollars, total.unpriced) == (0, 0)


def test_registering_twice_changes_nothing() -> None:
    import litellm

    register()
    before = list(litellm.custom_provider_map)
    register()
    assert litellm.custom_provider_map == before


def test_an_unknown_goal_is_an_error_of_one_context() -> None:
    known = Context("a", (SYSTEM, turn_message(FORM, goal=GOAL)), 0)
    unknown = Context("b", (SYSTEM, turn_message(FORM, goal="Bake a cake.")), 0)
    replies = LLMPolicy(llm()).act([known, unknown, known])
    assert [bool(reply.error) for reply in replies] == [False, True, False]
    assert "does not know this goal" in replies[1].error


def test_unknown_environment_fails_at_once() -> None:
    with pytest.raises(UnknownName, match="nowhere"):
        LLM("expert/nowhere", role="teacher")


@pytest.mark.parametrize("role", ["judge", "distiller"])
def test_roles_are_told_by_the_system_message(role: str) -> None:
    assert role_of([{"role": "system", "content": prompt(role)}]) == role
    assert role_of([{"role": "system", "content": "Act."}, {"role": "user", "content": f"Role: {role}"}]) is None


def test_a_request_that_is_no_episode_is_refused() -> None:
    with pytest.raises(PolicyFailed, match="Goal"):
        llm().complete([Message(role="user", content="Tell me a joke.")])


def test_a_bug_in_the_expert_is_not_disguised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("tutelage.agents.experts", fromlist=["BUILTIN"]).BUILTIN, "buggy", "operator:index")
    with pytest.raises(TypeError):
        LLM("expert/buggy", role="teacher").complete([SYSTEM, turn_message(FORM, goal=GOAL)])


LINES = st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]), max_size=20)


@given(observation=st.lists(LINES | st.sampled_from(["Goal: x", "Note: y", "Observation:"])), goal=LINES, note=LINES)
def test_a_turn_reads_back_whatever_the_page_says(observation: list[str], goal: str, note: str) -> None:
    page = "\n".join(observation)
    first = turn_message(page, [note], goal=goal, shown=[Shown(id="e", version=1, text=note)]).content
    assert read_turn(first) == (goal, page)
    assert read_turn(turn_message(page, [note]).content) == (None, page)
    messages = [SYSTEM.model_dump(), {"role": "user", "content": first}]
    assert view_of(messages).goal == goal
