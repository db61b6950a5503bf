"""The file tree: its tools, its exact check, and tasks that vary."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.environments.files import Files
from tutelage.environments.files_paths import MOST_FILES, TEXT_LENGTH
from tutelage.environments.files_tasks import FAMILIES, Scene, scene
from tutelage.errors import EnvironmentBroken, UnknownName
from tutelage.types import Cause, Split, Task

FIRST = "Top folder:\ndocs/\na.txt\nb.txt"


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> Files:
    """A tree of our own, in which ``a.txt`` has to go into the folder ``docs``."""
    tree = {"b.txt": "two\nlines", "a.txt": "one", "docs/c.md": "three"}
    wanted = {"b.txt": "two\nlines", "docs/a.txt": "one", "docs/c.md": "three"}
    monkeypatch.setattr("tutelage.environments.files.scene", lambda *_: Scene("Move it.", tree, wanted))
    environment = Files()
    environment.reset()
    return environment


def do(files: Files, name: str, **arguments: str) -> tuple[str, Cause, str]:
    observation, *_, info = files.step(f"{name}({json.dumps(arguments)})")
    return observation, info["diagnosis"].cause, info["diagnosis"].evidence


def test_every_tool_does_what_it_says(files: Files) -> None:
    assert files.observation == FIRST
    assert do(files, "list", folder="docs")[0] == 'Folder "docs":\nc.md'
    assert do(files, "read", file="b.txt")[0] == 'Text of "b.txt":\ntwo\nlines'
    assert do(files, "find", text="T")[0] == 'Files with "T":\nb.txt\ndocs/c.md'
    assert do(files, "find", text="nowhere")[0] == 'No file holds "nowhere".'
    assert do(files, "write", file="new/d.txt", text="x\ny")[0] == 'Wrote "new/d.txt":\nx\ny'
    assert do(files, "copy", source="b.txt", target="docs/b.txt")[0] == 'Copied "b.txt" to "docs/b.txt".'
    assert do(files, "move", source="new/d.txt", target="d.txt")[0] == 'Moved "new/d.txt" to "d.txt".'
    assert do(files, "remove", file="docs/c.md")[0] == 'Removed "docs/c.md".'
    assert do(files, "list")[0] == "Top folder:\ndocs/\na.txt\nb.txt\nd.txt"
    assert do(files, "list", folder="./docs/")[0] == 'Folder "docs":\nb.txt'
    assert do(files, "read", file="docs/b.txt")[0].endswith("\ntwo\nlines")


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("list", {"folder": "dox"}, 'no folder "dox"'),
        ("list", {"folder": "a.txt"}, '"a.txt" is a file'),
        ("read", {"file": "z.txt"}, 'no file "z.txt"'),
        ("read", {"file": "docs"}, '"docs" is a folder'),
        ("read", {"file": "../etc/passwd"}, "is no path"),
        ("read", {"file": 'a"b\n'}, "is no path"),
        ("find", {"text": " "}, "nothing to look for"),
        ("write", {"file": "b.txt", "text": "x"}, "read it before"),
        ("write", {"file": "c.txt", "text": "x" * (TEXT_LENGTH + 1)}, "1001 characters"),
        ("write", {"file": "c.txt", "text": "bell \x07"}, "plain characters"),
        ("move", {"source": "a.txt", "target": "docs"}, 'write "docs/a.txt"'),
        ("move", {"source": "a.txt", "target": "b.txt"}, 'already a file "b.txt"'),
        ("move", {"source": "a.txt", "target": "b.txt/a.txt"}, '"b.txt" is a file'),
        ("copy", {"source": "z.txt", "target": "y.txt"}, 'no file "z.txt"'),
        ("remove", {"file": "docs"}, '"docs" is a folder'),
    ],
)
def test_what_cannot_be_done_is_refused_and_changes_nothing(
    files: Files, name: str, arguments: dict[str, str], says: str
) -> None:
    observation, cause, evidence = do(files, name, **arguments)
    assert (observation, cause) == (FIRST, Cause.ACTION_FAILED)
    assert says in evidence
    assert do(files, "move", source="a.txt", target="docs/a.txt")[1] is Cause.PROGRESS
    assert files.step("done()")[1] == 1.0


def test_a_file_that_was_read_can_be_replaced(files: Files) -> None:
    do(files, "read", file="b.txt")
    do(files, "move", source="b.txt", target="c.txt")
    assert do(files, "write", file="c.txt", text="new")[1] is Cause.PROGRESS
    do(files, "write", file="b.txt", text="mine")
    assert do(files, "write", file="b.txt", text="still mine")[1] is Cause.PROGRESS


def test_the_end_is_checked_exactly_and_credit_tells_how_far(files: Files) -> None:
    move = 'move({"source": "a.txt", "target": "docs/a.txt"})'
    *_, info = files.step('copy({"source": "a.txt", "target": "docs/a.txt"})')
    assert info["credit"] == 0.5
    _, reward, over, _, info = files.step("done()")
    assert (reward, over, info["diagnosis"].cause) == (0.0, True, Cause.WRONG_END)

    files.reset()
    *_, info = files.step(move)
    assert info["credit"] == 1.0
    *_, info = files.step('write({"file": "extra.txt", "text": "x"})')
    assert info["credit"] == 0.5
    assert files.step("done()")[1:3] == (0.0, True)

    files.reset()
    files.step(move)
    observation, reward, over, _, info = files.step("done()")
    assert (observation, reward, over, info["diagnosis"].cause) == ("The task is over.", 1.0, True, Cause.SOLVED)
    with pytest.raises(EnvironmentBroken):
        files.step("done()")


def test_the_tree_cannot_grow_without_end(files: Files) -> None:
    for number in range(MOST_FILES):
        _, cause, evidence = do(files, "write", file=f"n{number}.txt", text="")
    assert cause is Cause.ACTION_FAILED
    assert "no more fit" in evidence
    assert do(files, "move", source="a.txt", target="n99.txt")[1] is Cause.ACTION_FAILED


@pytest.mark.parametrize("family", FAMILIES)
def test_tasks_vary_and_are_not_solved_at_first(family: str) -> None:
    environment, seen = Files(), set()
    for task in Files.tasks(Split.TRAIN, [family], count=200):
        made = scene(family, task.seed)
        assert made == scene(family, task.seed)
        assert made.files != made.wanted
        observation, info = environment.reset(options={"task": task})
        assert observation.startswith("Top folder:\n")
        seen.add((info["goal"], observation))
    assert len(seen) >= 150
    assert environment.step("done()")[1] == 0.0


def test_unknown_family() -> None:
    with pytest.raises(UnknownName, match="append, collect"):
        Files().reset(options={"task": Task(environment="files", family="x", seed=0, split=Split.TRAIN)})


_names = st.sampled_from(["list", "find", "read", "write", "move", "copy", "remove", "open", "eval"])
_texts = st.text(max_size=30) | st.sampled_from(["", "/", "..", "a/../b", ".", "docs/", "\ud800", "\x00", "a" * 3000])
_values = _texts | st.none() | st.integers() | st.lists(_texts, max_size=2)
_arguments = st.dictionaries(st.sampled_from(["folder", "file", "text", "source", "target", "x"]), _values, max_size=3)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(action=st.text(max_size=40) | st.builds(lambda n, a: f"{n}({json.dumps(a)})", _names, _arguments))
def test_no_action_raises_or_ends_the_task(action: str) -> None:
    environment = Files()
    environment.reset(options={"family": "move"})
    _, reward, over, _, info = environment.step(action)
    assert (reward, over) == (0.0, False)
    assert "\n" not in info["diagnosis"].evidence
    assert len(info["diagnosis"].evidence) < 400
