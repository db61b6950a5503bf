"""The oracle replays a reference solution, and says nothing where there is none."""

import pytest

from tutelage.agents.oracle import Oracle, gold_of, task_of
from tutelage.conversation import turn_message
from tutelage.environments.bfcl import Bfcl
from tutelage.errors import ConfigError, UnknownName
from tutelage.types import Context, Message, Split, Task

GOLD = ('cd({"folder": "a"})', "ls()", "end_turn()")
KEY = "bfcl/base@7#3"


def _context(*actions: str, notes: tuple[str, ...] = (), key: str = KEY) -> Context:
    messages = [Message(role="system", content="Tools."), turn_message("Nothing.", goal="Look around.")]
    for action in actions:
        messages += [Message(role="assistant", content=action), turn_message("A result.", notes)]
    return Context(key, tuple(messages), 0, "bfcl")


def _reply(*actions: str, notes: tuple[str, ...] = ()) -> tuple[str, str]:
    (reply,) = Oracle(lambda task: GOLD).act([_context(*actions, notes=notes)])
    return reply.text, reply.error


@pytest.mark.parametrize("taken", range(len(GOLD)))
def test_replays_in_order(taken: int) -> None:
    assert _reply(*GOLD[:taken]) == (GOLD[taken], "")


def test_thoughts_and_spaces_do_not_matter() -> None:
    assert _reply('First the folder.\ncd( {"folder":"a"} )') == ("ls()", "")


@pytest.mark.parametrize(
    "taken",
    [
        ("ls()",),
        ('cd({"folder": "b"})',),
        ("nonsense",),
        (GOLD[0], "nonsense", GOLD[1]),
        GOLD,
        (*GOLD, "ls()"),
    ],
)
def test_no_label_off_the_path(taken: tuple[str, ...]) -> None:
    text, error = _reply(*taken)
    assert text == ""
    assert "no label off the gold path" in error


def test_no_label_after_a_blocked_action() -> None:
    """The conversation shows the action, but a guardrail kept it from being carried out."""
    assert _reply(GOLD[0], notes=("Blocked: it failed before. Do not.",))[0] == ""
    assert _reply(GOLD[0], notes=("2 steps in a row failed, the last one cd: Blocked: no.",))[0] == ""
    assert _reply(GOLD[0], notes=("cd: no such folder",)) == (GOLD[1], "")


def test_label_says_what_it_is() -> None:
    assert "oracle" in Oracle().label


def test_solutions_come_from_the_environment() -> None:
    task = Task(environment="bfcl", family="base", seed=7, split=task_of(KEY).split)
    assert gold_of(task) == Bfcl.gold(task)
    (reply,) = Oracle().act([_context()])
    assert reply.text == Bfcl.gold(task)[0]


def test_task_of_a_key_knows_its_split() -> None:
    for split in Split:
        task = Bfcl.tasks(split, ["miss_func"], start=2)[0]
        assert task_of(f"{task.id}#12") == task


@pytest.mark.parametrize("key", ["", "bfcl", "bfcl/base", "bfcl/base@x#1", "nowhere/base@1#1", "bfcl/base@500#1"])
def test_keys_of_no_task(key: str) -> None:
    with pytest.raises(UnknownName):
        Oracle().act([_context(key=key)])


def test_environment_without_solutions() -> None:
    with pytest.raises(ConfigError, match="'toy' keeps no reference solutions"):
        Oracle().act([_context(key="toy/copy@1#0")])
