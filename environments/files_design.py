"""Designed tasks in a small file tree: the wanted end, written as what differs from the start."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from tutelage.designs import Design
from tutelage.environments.base import ActionRefused
from tutelage.environments.design import parsed, refused
from tutelage.environments.files_paths import MOST_FILES, TEXT_LENGTH, above, check_text, is_file, path_of
from tutelage.environments.files_tasks import Scene, Tree
from tutelage.types import Frozen

GUIDE: Final = f"""\
"end" says how the files differ from the start when the task is done. It is an object with one or more of these keys:
- "texts": {{path: text}}: files that are new or get a new text. Write the whole text the file holds in the end, up to
  {TEXT_LENGTH} characters, with no blank or line end before or after it.
- "moved": {{new path: old path}}: files that get another path and keep their text. Renaming is moving.
- "copied": {{new path: old path}}: files that get the text of another file, which stays where it is.
- "gone": [path, ...]: files that are deleted.
Old paths are those at the start, exactly as they were seen. A path is "name" or "folder/name", of letters, digits,
".", "_" and "-"; a folder is there as long as a file is in it. A moved or copied file takes the place of another one
only if that one is moved or in "gone".
Files that are not named must be as at the start, so name every change, and nothing that stays.
The goal must say all that the end asks for, with new paths and new texts word for word: whoever does the task sees
the goal and not the end. A question is put as a file to write, such as: Write the number of files into "count.txt".
Example, for the goal: Move "notes.txt" into the folder "archive", delete "old.log" and write "3 left" into "log.txt".
{{"moved": {{"archive/notes.txt": "notes.txt"}}, "gone": ["old.log"], "texts": {{"log.txt": "3 left"}}}}"""


class End(Frozen):
    """What differs from the start; paths are given as an agent may write them."""

    gone: tuple[str, ...] = ()
    texts: dict[str, str] = {}
    moved: dict[str, str] = {}
    """New path to old path."""
    copied: dict[str, str] = {}


def designed(first: Scene, design: Design) -> Scene:
    """The scene of a design that begins with the files of `first`.

    Raises:
        DesignRefused: its end is malformed, impossible, or there from the start.
    """
    if design.end is None:
        return Scene(design.goal, first.files, first.files, solvable=False)
    wanted = _wanted(first.files, parsed(End, design.end))
    if wanted == first.files:
        raise refused("the end is as the start; a task has to change something")
    return Scene(design.goal, first.files, wanted)


def _wanted(files: Tree, end: End) -> Tree:
    gone = [_there(files, path, "gone") for path in end.gone]
    moved = [(_path(new, "moved"), _there(files, old, "moved")) for new, old in end.moved.items()]
    copied = [(_path(new, "copied"), _there(files, old, "copied")) for new, old in end.copied.items()]
    texts = [(_path(path, "texts"), _text(path, text)) for path, text in end.texts.items()]
    sources = [old for _, old in moved]
    _once(sources, 'moved to two places; use "copied"')
    _once([path for path, _ in (*texts, *moved, *copied)], "given two texts")
    left = {*gone, *sources}
    for path, _ in texts:
        if path in gone:
            raise refused(f'end: "{path}" is both in "gone" and in "texts"')
    for path, _ in (*moved, *copied):
        if path in files and path not in left:
            raise refused(f'end: there is already a file "{path}"; to have it replaced, name it in "gone"')
    stay = {path: text for path, text in files.items() if path not in left}
    wanted = stay | dict(texts) | {new: files[old] for new, old in (*moved, *copied)}
    _check_tree(wanted)
    return wanted


def _check_tree(files: Mapping[str, str]) -> None:
    if len(files) > MOST_FILES:
        raise refused(f"end: there would be {len(files)} files; at most {MOST_FILES} fit")
    taken = next((folder for path in files for folder in above(path) if folder in files), None)
    if taken is not None:
        raise refused(f"end: {is_file(taken)}")


def _there(files: Tree, text: str, key: str) -> str:
    path = _path(text, key)
    if path not in files:
        folder = any(path in above(other) for other in files)
        raise refused(f'end.{key}: "{path}" is {"a folder; name its files" if folder else "no file at the start"}')
    return path


def _path(text: str, key: str) -> str:
    with _as_refusal(key):
        return path_of(text)


def _text(path: str, text: str) -> str:
    if text != text.strip():
        raise refused(f'end.texts: the text of "{path}" has blanks or line ends around it; leave them out')
    with _as_refusal("texts"):
        check_text(text)
    return text


@contextmanager
def _as_refusal(key: str) -> Iterator[None]:
    """What an agent would be refused is refused to a designer in the same words."""
    try:
        yield
    except ActionRefused as error:
        raise refused(f"end.{key}: {error}") from error


def _once(paths: Iterable[str], otherwise: str) -> None:
    seen: set[str] = set()
    for path in paths:
        if path in seen:
            raise refused(f'end: "{path}" is {otherwise}')
        seen.add(path)
