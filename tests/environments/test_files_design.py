"""Ends of designed file tasks: the tree they stand for, and what is refused; `tests/contract` plays them."""

from typing import Any

import pytest

from tutelage.designs import Design
from tutelage.environments.files_design import designed
from tutelage.environments.files_paths import MOST_FILES, TEXT_LENGTH
from tutelage.environments.files_tasks import Scene
from tutelage.errors import DesignRefused
from tutelage.types import Split, Task

FILES = {"a.txt": "one", "b.txt": "two", "docs/c.md": "three"}
TASK = Task(environment="files", family="move", seed=1, split=Split.TRAIN)


def wanted(end: dict[str, Any]) -> dict[str, str]:
    first = Scene("Move.", FILES, {"a.txt": "one"})
    scene = designed(first, Design(task=TASK, base=TASK, goal="Tidy up.", end=end))
    assert (scene.goal, scene.files) == ("Tidy up.", FILES)
    return scene.wanted


@pytest.mark.parametrize(
    ("end", "differs"),
    [
        ({"gone": ["./docs/c.md"]}, {"docs/c.md": None}),
        ({"texts": {"a.txt": "1\n2", "new/d.txt": ""}}, {"a.txt": "1\n2", "new/d.txt": ""}),
        ({"moved": {"/docs/a.txt": "a.txt"}}, {"a.txt": None, "docs/a.txt": "one"}),
        ({"moved": {"a.txt": "b.txt", "b.txt": "a.txt"}}, {"a.txt": "two", "b.txt": "one"}),
        ({"moved": {"a.txt": "b.txt"}, "gone": ["a.txt"]}, {"a.txt": "two", "b.txt": None}),
        ({"moved": {"z": "a.txt"}, "texts": {"a.txt": "new"}}, {"a.txt": "new", "z": "one"}),
        ({"copied": {"z": "a.txt"}, "moved": {"y": "a.txt"}}, {"a.txt": None, "z": "one", "y": "one"}),
        ({"gone": ["a.txt"], "texts": {"a.txt/x": "in"}}, {"a.txt": None, "a.txt/x": "in"}),
    ],
)
def test_the_end_is_the_start_with_what_is_named(end: dict[str, Any], differs: dict[str, str | None]) -> None:
    assert wanted(end) == {path: text for path, text in (FILES | differs).items() if text is not None}


@pytest.mark.parametrize(
    ("end", "says"),
    [
        ({"gone": "a.txt"}, r"end\.gone: "),
        ({"texts": {"a.txt": 3}}, r"end\.texts\.a\.txt: "),
        ({"removed": ["a.txt"]}, r"end\.removed: Extra"),
        ({"gone": []}, "as the start"),
        ({"gone": ["z.txt"]}, r'end\.gone: "z.txt" is no file at the start'),
        ({"gone": ["docs"]}, '"docs" is a folder; name its files'),
        ({"moved": {"y": "z.txt"}}, r'end\.moved: "z.txt" is no file'),
        ({"moved": {"b.txt": "a.txt"}}, 'already a file "b.txt"; .* "gone"'),
        ({"copied": {"b.txt": "a.txt"}}, 'already a file "b.txt"'),
        ({"moved": {"y": "a.txt", "z": "a.txt"}}, 'moved to two places; use "copied"'),
        ({"moved": {"z": "a.txt"}, "texts": {"./z": "x"}}, '"z" is given two texts'),
        ({"gone": ["a.txt"], "texts": {"a.txt": "x"}}, 'both in "gone" and in "texts"'),
        ({"texts": {"../a.txt": "x"}}, r"end\.texts: .* is no path"),
        ({"texts": {"a.txt/x": "x"}}, '"a.txt" is a file, not a folder'),
        ({"texts": {"docs": "x"}}, '"docs" is a file, not a folder'),
        ({"texts": {"z": "x\n"}}, "line ends around it"),
        ({"texts": {"z": "bell \x07 rings"}}, r"end\.texts: .*plain characters"),
        ({"texts": {"z": "x" * (TEXT_LENGTH + 1)}}, "1001 characters"),
        ({"copied": {f"z{n}": "a.txt" for n in range(MOST_FILES)}}, "63 files"),
    ],
)
def test_an_end_that_cannot_be_is_refused(end: dict[str, Any], says: str) -> None:
    with pytest.raises(DesignRefused, match=says):
        wanted(end)
