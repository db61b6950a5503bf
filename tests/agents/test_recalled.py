"""What memory told the agent is no finding, however it comes back; what goes further is."""

import pytest

from tutelage.agents.distiller import distil
from tutelage.agents.recalled import repeats
from tutelage.experience import Content, Experience, Guardrail, Skill, Source, Sticker
from tutelage.llm import LLM
from tutelage.memory.text import render
from tutelage.types import Shown, Trajectory, Verdict

FILL, PRESS = 'fill(textbox "User", "{goal}")', 'click(button "Login")'
SKILL = Skill(preconditions=("The page has a textbox.",), procedure=(FILL, PRESS), verification=())
STICKER = Sticker(conditions=("The goal names one date.", "The picker is closed."), question="Which month is meant?")
RULE = Guardrail(trigger=("dialog",), root_cause="A dialog.", forbidden=PRESS, remedy="Close the dialog first.")


def as_shown(content: Content) -> Shown:
    source = Source(trajectory="t", task="toy/login@1")
    item = Experience(
        environment="toy", family="login", goal="Log in.", content=content, sources=(source,), author="a hand"
    )
    return Shown(id=item.id, version=1, text=f"(on trial) {render(item)}")


@pytest.mark.parametrize("content", [SKILL, STICKER, RULE])
def test_the_same_again_is_recognised_and_only_among_what_was_shown(content: Content) -> None:
    assert repeats(content, [as_shown(content)])
    assert not repeats(content, [])
    assert not repeats(content, [as_shown(other) for other in (SKILL, STICKER, RULE) if other != content])


@pytest.mark.parametrize(
    "content",
    [
        SKILL.model_copy(update={"preconditions": ("Other words about the page.",)}),
        SKILL.model_copy(update={"procedure": (PRESS,)}),
        STICKER.model_copy(update={"conditions": STICKER.conditions[::-1]}),
    ],
)
def test_an_echo_may_be_dressed_up(content: Content) -> None:
    assert repeats(content, [as_shown(SKILL), as_shown(STICKER)])


@pytest.mark.parametrize(
    "content",
    [
        SKILL.model_copy(update={"procedure": (FILL, PRESS, 'click(link "Inbox")')}),
        SKILL.model_copy(update={"procedure": (FILL, 'click(button "Send")')}),
        STICKER.model_copy(update={"question": "Which day is meant?"}),
        RULE.model_copy(update={"forbidden": 'click(button "Cancel")'}),
    ],
)
def test_what_goes_further_is_a_finding(content: Content) -> None:
    assert not repeats(content, [as_shown(SKILL), as_shown(STICKER), as_shown(RULE)])


def test_an_episode_with_memory_gives_nothing_that_it_was_shown(toy_episodes: list[Trajectory]) -> None:
    """Distilled once without memory, then again from the same episode as if memory had shown all of that."""
    trajectory = next(item for item in toy_episodes if item.success)
    verdict = Verdict(trajectory=trajectory.id, judge="a judge", successful=True, reason="done")
    llm = LLM("expert/toy", role="distiller")
    found, _ = distil(trajectory, verdict, [], llm)
    assert found
    reminded = trajectory.model_copy(update={"shown": tuple(as_shown(item.content) for item in found)})
    again, refused = distil(reminded, verdict, [], llm)
    assert again == []
    assert [item.reason for item in refused] == ["an experience that was recalled from memory"] * len(found)
