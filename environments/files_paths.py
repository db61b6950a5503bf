"""Paths and texts of the small file tree: their form and their limits."""

import re

from tutelage.environments.base import ActionRefused
from tutelage.environments.design import plain

TEXT_LENGTH = 1000
"""Characters a file may hold; all of it fits into an observation."""
PATH_LENGTH = 100
MOST_FILES = 60

_PART = re.compile(r"\w[\w.-]*(?: [\w.-]+)*|[.-]+\w[\w.-]*")


def path_of(text: str) -> str:
    """A path in its one form, without ``./``, a leading or a trailing slash.

    Raises:
        ActionRefused: it is none.
    """
    path = text.strip().removeprefix("./").strip("/")
    if len(path) > PATH_LENGTH or not all(_PART.fullmatch(part) for part in path.split("/")):
        raise ActionRefused(f'"{cut(text)}" is no path; write one such as "a.txt" or "folder/a.txt".')
    return path


def above(path: str) -> list[str]:
    """The folders that a file is in, from the top."""
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


def check_text(text: str) -> None:
    """Raises: ActionRefused: no file can hold it."""
    if len(text) > TEXT_LENGTH:
        raise ActionRefused(f"The text has {len(text)} characters; a file holds {TEXT_LENGTH}.")
    if not plain(text):
        raise ActionRefused("Files hold plain characters and line ends only.")


def is_file(path: str) -> str:
    """What is said of a file in a folder's place."""
    return f'"{path}" is a file, not a folder.'


def cut(text: str) -> str:
    """The beginning of a text in one line, for messages."""
    line = " ".join(text.split())
    return line if len(line) <= 40 else line[:37] + "..."
