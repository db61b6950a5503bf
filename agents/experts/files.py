"""The expert for the small file tree.

It follows what each call did to the files it knows of, works out where everything has to be, and takes the
first step towards that; a mistake is simply a file in the wrong place.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tutelage.agents.experts import exploring
from tutelage.agents.experts.page import Advice, View
from tutelage.agents.experts.toolkit import Goals, Made, call, calls

FILES = Goals()
advise = FILES.advise

SPARE = ("temp", "temp2", "temp3")
"""Where a file waits while two trade places."""

_FOLDER = re.compile(r'(?:Top folder|Folder "(?P<folder>[^"]*)"):')
_FOUND = re.compile(r'Files with "(?P<text>[^"]*)":')
_TEXT = re.compile(r'Text of "(?P<file>[^"]*)":')
_PLACED = re.compile(r'(?P<how>Moved|Copied) "(?P<source>[^"]*)" to "(?P<target>[^"]*)"\.')
_REMOVED = re.compile(r'Removed "(?P<file>[^"]*)"\.')
_WROTE = re.compile(r'Wrote "(?P<file>[^"]*)":')


@dataclass(frozen=True)
class Unread:
    """The text that a file had at first, as long as nobody has read it."""

    path: str


Content = Unread | str | None
"""What is at a path; None if nothing is."""
Places = dict[str, Content]


class Unknown(Exception):
    """Something has to be found out first."""

    def __init__(self, action: str) -> None:
        self.action = action


class Seen:
    """What is known of the files: as they were at first, and as they are now."""

    def __init__(self, view: View) -> None:
        self.first: Places = {}
        self.now: Places = {}
        self.listed: set[str] = set()
        self.found: dict[str, list[Content]] = {}
        self._list(view.observations[0])
        for made in calls(view):
            if made.result != made.before:
                self._follow(made)

    def _follow(self, made: Made) -> None:
        heading, _, rest = made.result.partition("\n")
        if made.name == "list":
            self._list(made.result)
        elif made.name == "find" and (match := _FOUND.fullmatch(heading)):
            self.found[match["text"]] = [self._there(path) for path in rest.splitlines()]
        elif made.name == "find":
            self.found[str(made.arguments.get("text"))] = []
        elif made.name == "read" and (match := _TEXT.fullmatch(heading)):
            self._learn(self._there(match["file"]), rest)
        elif made.name in ("move", "copy") and (match := _PLACED.fullmatch(made.result)):
            self._place(match["source"], match["target"], moved=match["how"] == "Moved")
        elif made.name == "remove" and (match := _REMOVED.fullmatch(made.result)):
            self._there(match["file"])
            self.now[match["file"]] = None
        elif made.name == "write" and (match := _WROTE.fullmatch(heading)):
            # Nobody writes over a file unread, so one that is not known was not there.
            self._free(match["file"])
            self.now[match["file"]] = rest

    def _list(self, observation: str) -> None:
        heading, _, rest = observation.partition("\n")
        match = _FOLDER.fullmatch(heading)
        if match:
            folder = match["folder"] or ""
            self.listed.add(folder)
            for name in rest.splitlines():
                if not name.endswith("/"):
                    self._there(f"{folder}/{name}" if folder else name)

    def _place(self, source: str, target: str, *, moved: bool) -> None:
        content = self._there(source)
        self._free(target)
        self.now[target] = content
        if moved:
            self.now[source] = None

    def _there(self, path: str) -> Content:
        """What is at a path where a file shows now; one that was not known was there all the time."""
        if path not in self.now:
            self.first[path] = self.now[path] = Unread(path)
        return self.now[path]

    def _free(self, path: str) -> None:
        if path not in self.now:
            self.first[path] = self.now[path] = None

    def _learn(self, content: Content, text: str) -> None:
        for places in (self.first, self.now):
            places.update({path: text for path, held in places.items() if held == content})
        for contents in self.found.values():
            contents[:] = [text if held == content else held for held in contents]

    # -- questions ------------------------------------------------------------------------------

    def inside(self, folder: str) -> list[str]:
        """The files that a folder held at first.

        Raises:
            Unknown: it was not listed.
        """
        if folder not in self.listed:
            raise Unknown(call("list", folder=folder) if folder else call("list"))
        return [path for path, held in self.first.items() if held is not None and path.rpartition("/")[0] == folder]

    def named(self, path: str) -> Content:
        """What a file that the goal names held at first; one in a folder that was not listed is taken to be there."""
        folder = path.rpartition("/")[0]
        if path not in self.first and folder and folder not in self.listed:
            self._there(path)
        return self.first.get(path)

    def text(self, path: str) -> str:
        """The text that a file had at first.

        Raises:
            Unknown: it was not read, or is lost.
        """
        content = self.named(path)
        if content is None:
            raise Unknown(call("list"))
        if isinstance(content, str):
            return content
        place = next((place for place, held in self.now.items() if held == content), None)
        raise Unknown(call("read", file=place) if place else call("list"))

    def holder(self, text: str) -> str:
        """Where the file that holds `text` was at first.

        Raises:
            Unknown: it was not looked for, or is not there any more.
        """
        if text not in self.found:
            raise Unknown(call("find", text=text))
        for content in self.found[text]:
            for path, held in self.first.items():
                if held == content and held is not None:
                    return path
        raise Unknown(call("list"))


def towards(seen: Seen, wanted: Places) -> Advice:
    """The steps that bring files to where they are wanted, and all others to where they were at first."""
    aim = wanted | {path: content for path, content in seen.first.items() if path not in wanted}
    now = {path: seen.now.get(path) for path in aim}
    if now == aim:
        return Advice((call("done"),))
    # What is missing in a free place comes first, then what is in the way; a circle is broken last.
    missing = {content for path, content in aim.items() if content is not None and content != now[path]}
    wrong = [path for path in aim if now[path] is not None and now[path] != aim[path]]
    steps = [step for path in aim if now[path] is None and (step := _fetch(path, now, aim))]
    steps += [call("remove", file=path) for path in wrong if aim[path] is None and now[path] not in missing]
    steps += [
        call("write", file=path, text=text)
        for path in wrong
        if isinstance(text := aim[path], str) and isinstance(now[path], str) and now[path] not in missing
    ]
    spare = next((path for path in SPARE if now.get(path) is None), "")
    steps = steps or [call("move", source=path, target=spare) for path in wrong if spare and aim[path] is not None]
    # With nothing left to do for it, the files cannot be mended; to say "done" would be wrong.
    return Advice(tuple(steps) or (call("list"),))


def _fetch(path: str, now: Places, aim: Places) -> str:
    """The call that puts what is wanted at a free place there; empty if nothing is, or there is no way."""
    content = aim[path]
    if content is None:
        return ""
    holders = [place for place, held in now.items() if held == content]
    spare = [place for place in holders if aim[place] != content]
    if spare:
        return call("move", source=spare[0], target=path)
    if holders:
        return call("copy", source=holders[0], target=path)
    return call("write", file=path, text=content) if isinstance(content, str) else ""


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _planned(plan: Callable[..., Places]) -> Callable[..., Advice]:
    """An answer that follows a plan of what has to be where, once everything it needs is known."""

    def answer(view: View, **values: str) -> Advice:
        seen = Seen(view)
        try:
            return towards(seen, plan(seen, **values))
        except Unknown as unknown:
            return Advice((unknown.action,))

    return answer


def _into(seen: Seen, folder: str, paths: Iterable[str]) -> Places:
    places: Places = {}
    for path in paths:
        places |= {path: None, f"{folder}/{_name(path)}": seen.named(path)}
    return places


def goal(*wordings: str, families: str) -> Callable[[Callable[..., Places]], Callable[..., Places]]:
    """Register a plan for goals; ``<name>`` in a wording is a quoted value."""
    patterns = [re.sub(r"<(\w+)>", r'"(?P<\1>[^"]+)"', wording) for wording in wordings]

    def register(plan: Callable[..., Places]) -> Callable[..., Places]:
        FILES.goal(*patterns, families=families)(_planned(plan))
        return plan

    return register


@goal(
    r"Rename <old> to <new>\.",
    r"Change the name of <old> to <new>\.",
    r"Give the file <old> the new name <new>\.",
    families="rename",
)
def rename(seen: Seen, old: str, new: str) -> Places:
    return {old: None, new: seen.named(old)}


@goal(
    r"Move <path> into the folder <folder>\.",
    r"Put the file <path> into <folder>\.",
    r"The file <path> belongs in <folder>; move it there\.",
    families="move",
)
def move(seen: Seen, path: str, folder: str) -> Places:
    return _into(seen, folder, [path])


@goal(
    r"Copy <path> into the folder <folder>\.",
    r"Put a copy of <path> into <folder>\.",
    r"Keep <path> and make a copy of it in <folder>\.",
    families="copy",
)
def copy(seen: Seen, path: str, folder: str) -> Places:
    return {f"{folder}/{_name(path)}": seen.named(path)}


@goal(
    r"Write <text> into a new file <path>\.",
    r"Create the file <path> with the text <text>\.",
    r"Make a file <path> that says <text>\.",
    families="write",
)
def write(seen: Seen, path: str, text: str) -> Places:
    return {path: text}


@goal(
    r"Add the line <line> at the end of <path>\.",
    r"Append <line> to <path> as a new line\.",
    r"Put the line <line> below the text of <path>\.",
    families="append",
)
def append(seen: Seen, path: str, line: str) -> Places:
    return {path: f"{seen.text(path)}\n{line}"}


@goal(
    r"Remove all <ending> files from the folder <folder>\.",
    r"Delete every <ending> file in <folder>\.",
    r"Clear the folder <folder> of its <ending> files\.",
    families="delete",
)
def delete(seen: Seen, ending: str, folder: str) -> Places:
    return {path: None for path in seen.inside(folder) if path.endswith(ending)}


@goal(
    r"Move all <ending> files of the top folder into the folder <folder>\.",
    r"Collect the <ending> files of the top folder in <folder>\.",
    r"Every <ending> file of the top folder belongs in <folder>; move them there\.",
    families="collect",
)
def collect(seen: Seen, ending: str, folder: str) -> Places:
    return _into(seen, folder, [path for path in seen.inside("") if path.endswith(ending)])


@goal(
    r"Move the file that holds the word <word> into the folder <folder>\.",
    r"Find the file about the <word> and put it into <folder>\.",
    r"One file speaks of a <word>; move it into <folder>\.",
    families="find",
)
def find(seen: Seen, word: str, folder: str) -> Places:
    return _into(seen, folder, [seen.holder(word)])


@goal(
    r"Swap the names of <one> and <other>\.",
    r"Let the files <one> and <other> trade names\.",
    r"Exchange the names of <one> and <other>\.",
    families="swap",
)
def swap(seen: Seen, one: str, other: str) -> Places:
    return {one: seen.named(other), other: seen.named(one)}


@goal(
    r"Count the files in the folder <folder> and write the number into a new file <path>\.",
    r"Make a file <path> with the number of files in <folder>\.",
    r"How many files are in <folder>\? Write it into a new file <path>\.",
    families="count",
)
def count(seen: Seen, folder: str, path: str) -> Places:
    return {path: str(len(seen.inside(folder)))}


FILES.goal(exploring.EXPLORING, families="")(exploring.files)

COVERED = tuple(sorted(FILES.families))
"""Families it claims to solve."""
