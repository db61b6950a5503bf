"""Templates for tasks in the small file tree, filled from what an exploration showed of it."""

from tutelage.agents.design_rules import Kind, Taste, proposal, words
from tutelage.agents.experts.exploring import listed
from tutelage.agents.experts.files import Seen
from tutelage.agents.experts.page import View

_STEMS = words("brief card digest extract final folio keep latest memo outline record result review summary update")
_FOLDERS = ("attic", "cabinet", "closet", "drawer", "hall", "safe", "studio", "tray", "trunk", "vault")

Proposal = dict[str, object] | None


def kinds(view: View, taste: Taste) -> list[Kind]:
    """Every kind of task, once for each call."""
    tree = _Tree(view, taste)
    return [
        tree.append,
        tree.collect,
        tree.copy,
        tree.count,
        tree.delete,
        tree.find,
        tree.move,
        tree.rename,
        tree.swap,
        tree.write,
    ]


class _Tree:
    """What is known of the files as they were at first."""

    def __init__(self, view: View, taste: Taste) -> None:
        self._taste, self._draw = taste, taste.draw
        seen = Seen(view)
        held = {path: content for path, content in seen.first.items() if content is not None}
        self._paths = sorted(held)
        self._texts = {path: content for path, content in held.items() if isinstance(content, str)}
        self._listed = seen.listed
        self._folders = sorted({*listed(view.observations)[0], *(_folder(path) for path in held if "/" in path)})

    # -- kinds ----------------------------------------------------------------------------------

    def move(self) -> Proposal:
        if (found := self._path_and_folder()) is None:
            return None
        path, folder = found
        return proposal(
            self._said(
                'Move "<path>" into the folder "<folder>".',
                'Put the file "<path>" into "<folder>".',
                'The file "<path>" belongs in "<folder>"; move it there.',
            ),
            "<folder>/<name> holds the text that <path> had, <path> is gone, and no other file has changed.",
            {"moved": {"<folder>/<name>": "<path>"}},
            path=path,
            folder=folder,
            name=_name(path),
        )

    def copy(self) -> Proposal:
        if (found := self._path_and_folder()) is None:
            return None
        path, folder = found
        return proposal(
            self._said(
                'Copy "<path>" into the folder "<folder>".',
                'Put a copy of "<path>" into "<folder>".',
                'Keep "<path>" and make a copy of it in "<folder>".',
            ),
            "<path> is where it was, <folder>/<name> holds the same text, and no other file has changed.",
            {"copied": {"<folder>/<name>": "<path>"}},
            path=path,
            folder=folder,
            name=_name(path),
        )

    def rename(self) -> Proposal:
        path = self._one(self._paths)
        new = self._new(_folder(path), f".{path.rpartition('.')[2]}") if path and "." in _name(path) else ""
        if not new:
            return None
        return proposal(
            self._said(
                'Rename "<old>" to "<new>".',
                'Change the name of "<old>" to "<new>".',
                'Give the file "<old>" the new name "<new>".',
            ),
            "<new> holds the text that <old> had, there is no <old>, and no other file has changed.",
            {"moved": {"<new>": "<old>"}},
            old=path,
            new=new,
        )

    def write(self) -> Proposal:
        folder = self._one(["", *(folder for folder in self._folders if folder in self._listed)])
        path = self._new(folder, self._one([".txt", ".md", ".log"]))
        if not path:
            return None
        return proposal(
            self._said(
                'Write "<text>" into a new file "<path>".',
                'Create the file "<path>" with the text "<text>".',
                'Make a file "<path>" that says "<text>".',
            ),
            "There is a new file <path> that holds exactly: <text>; and no other file has changed.",
            {"texts": {"<path>": "<text>"}},
            path=path,
            text=self._taste.line(),
        )

    def append(self) -> Proposal:
        path = self._one(sorted(path for path, text in self._texts.items() if text))
        if not path:
            return None
        return proposal(
            self._said(
                'Add the line "<line>" at the end of "<path>".',
                'Append "<line>" to "<path>" as a new line.',
                'Put the line "<line>" below the text of "<path>".',
            ),
            "<path> holds its old text and below it the line <line>, and no other file has changed.",
            {"texts": {"<path>": "<text>\n<line>"}},
            path=path,
            line=self._taste.line(),
            text=self._texts[path],
        )

    def delete(self) -> Proposal:
        folder = self._one([folder for folder in self._folders if self._inside(folder)])
        ending = self._one(_endings(self._inside(folder)))
        if not ending:
            return None
        gone = [_name(path) for path in self._inside(folder) if path.endswith(ending)]
        return proposal(
            self._said(
                'Remove all "<ending>" files from the folder "<folder>".',
                'Delete every "<ending>" file in "<folder>".',
                'Clear the folder "<folder>" of its "<ending>" files.',
            ),
            f"Just {', '.join(gone)} went from <folder>, and no other file has changed.",
            {"gone": [f"<folder>/{name}" for name in gone]},
            folder=folder,
            ending=ending,
        )

    def collect(self) -> Proposal:
        top = self._inside("")
        ending, folder = self._one(_endings(top)), self._target("")
        chosen = [path for path in top if ending and path.endswith(ending)]
        if not chosen or not folder or any(f"{folder}/{path}" in self._paths for path in chosen):
            return None
        return proposal(
            self._said(
                'Move all "<ending>" files of the top folder into the folder "<folder>".',
                'Collect the "<ending>" files of the top folder in "<folder>".',
                'Every "<ending>" file of the top folder belongs in "<folder>"; move them there.',
            ),
            f"Just {', '.join(chosen)} went from the top folder into <folder>, and no other file has changed.",
            {"moved": {f"<folder>/{path}": path for path in chosen}},
            ending=ending,
            folder=folder,
        )

    def swap(self) -> Proposal:
        one = self._one(sorted(self._texts))
        other = self._one(sorted(path for path, text in self._texts.items() if one and text != self._texts[one]))
        if not other:
            return None
        return proposal(
            self._said(
                'Swap the names of "<one>" and "<other>".',
                'Let the files "<one>" and "<other>" trade names.',
                'Exchange the names of "<one>" and "<other>".',
            ),
            "<one> holds the old text of <other> and the other way round, and no other file has changed.",
            {"moved": {"<one>": "<other>", "<other>": "<one>"}},
            one=one,
            other=other,
        )

    def count(self) -> Proposal:
        folder, path = self._one([folder for folder in self._folders if self._inside(folder)]), self._new("", ".txt")
        if not folder or not path:
            return None
        number = str(len(self._inside(folder)))
        return proposal(
            self._said(
                'Count the files in the folder "<folder>" and write the number into a new file "<path>".',
                'Make a file "<path>" with the number of files in "<folder>".',
                'How many files are in "<folder>"? Write it into a new file "<path>".',
            ),
            "<path> is new and holds just the number <number>, and no other file has changed.",
            {"texts": {"<path>": "<number>"}},
            folder=folder,
            path=path,
            number=number,
        )

    def find(self) -> Proposal:
        """Only where every text is known, so that no other file can hold the word."""
        if set(self._texts) != set(self._paths) or not self._listed >= {"", *self._folders}:
            return None
        words = {path: _words(text) for path, text in self._texts.items()}
        single = sorted(
            (word, path)
            for path in self._paths
            for word in words[path]
            if sum(word.lower() in text.lower() for text in self._texts.values()) == 1
        )
        word, path = self._draw.choice(single) if single else ("", "")
        folder = self._target(_folder(path)) if path else ""
        if not folder or f"{folder}/{_name(path)}" in self._paths:
            return None
        return proposal(
            self._said(
                'Move the file that holds the word "<word>" into the folder "<folder>".',
                'Find the file about the "<word>" and put it into "<folder>".',
                'One file speaks of a "<word>"; move it into "<folder>".',
            ),
            "<path> is the file that holds <word>; it is <folder>/<name> now, and no other file has changed.",
            {"moved": {"<folder>/<name>": "<path>"}},
            word=word,
            folder=folder,
            path=path,
            name=_name(path),
        )

    # -- choices --------------------------------------------------------------------------------

    def _one(self, choices: list[str]) -> str:
        """One of the choices; empty if there is none."""
        return self._draw.choice(choices) if choices else ""

    def _said(self, *wordings: str) -> str:
        return self._draw.choice(wordings)

    def _inside(self, folder: str) -> list[str]:
        """The files of a folder; none if it was not listed, so that some may be unknown."""
        return [path for path in self._paths if _folder(path) == folder] if folder in self._listed else []

    def _target(self, source: str) -> str:
        """A folder other than `source` whose files are all known, or a new one; never the top folder."""
        taken = {*self._folders, *self._paths}
        fresh = [folder for folder in _FOLDERS if folder not in taken]
        known = [folder for folder in self._folders if folder in self._listed and folder != source]
        return self._one([*known, self._one(fresh)] if fresh else known)

    def _path_and_folder(self) -> tuple[str, str] | None:
        path = self._one(self._paths)
        folder = self._target(_folder(path)) if path else ""
        return (path, folder) if folder and f"{folder}/{_name(path)}" not in self._paths else None

    def _new(self, folder: str, ending: str) -> str:
        """A path in a folder at which there is nothing."""
        start = f"{folder}/" if folder else ""
        taken = {*self._paths, *self._folders}
        return self._one([path for stem in _STEMS if (path := f"{start}{stem}{ending}") not in taken])


def _folder(path: str) -> str:
    return path.rpartition("/")[0]


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _endings(paths: list[str]) -> list[str]:
    return sorted({f".{name.rpartition('.')[2]}" for path in paths if "." in (name := _name(path))})


def _words(text: str) -> list[str]:
    """The last word of every line, which is what the line is about."""
    last = (line.split()[-1] for line in text.split("\n") if line.strip())
    return sorted({word for word in last if word.isalpha()})
