"""Templates for tasks in the files of the MCP example, filled from what an exploration showed of them."""

import re

from tutelage.agents.design_rules import Kind, Taste, proposal
from tutelage.agents.experts.mcp import Seen
from tutelage.agents.experts.page import View

_STEMS = ("album", "extract", "final", "kept", "latest", "second", "spare")
_WORDS = ("amber", "cedar", "fable", "maple", "north", "onyx", "pearl")

Proposal = dict[str, object] | None


def kinds(view: View, taste: Taste) -> list[Kind]:
    """The kinds of task for which there are tools."""
    made = _Folder(view, taste)
    needs = {
        made.append: {"read_file", "write_file"},
        made.copy: {"read_file", "write_file"},
        made.find: {"list_directory", "read_file"},
        made.lookup: {"read_file"},
        made.replace: {"read_file", "write_file"},
    }
    return [kind for kind, tools in needs.items() if tools <= set(taste.tools)]


class _Folder:
    """What is known of the work folder as it was at first."""

    def __init__(self, view: View, taste: Taste) -> None:
        self._taste, self._draw = taste, taste.draw
        seen = Seen(view)
        self._listed = seen.listed
        plain = {path: text for path, text in seen.first.items() if not re.search(r"\s", path)}
        self._texts = {path: "\n".join(text.splitlines()) for path, text in sorted(plain.items()) if text.strip()}

    def copy(self) -> Proposal:
        source = self._one(list(self._texts))
        folder, target = source.rpartition("/")[0], self._one(self._free(source)) if source else ""
        if not target:
            return None
        return proposal(
            "Copy the text of <source> into a new file <target>.",
            "There is a new file <target> with the text of <source>, which has not changed itself.",
            {"checks": [{"kind": "text", "path": "<target>", "equals": "<text>"}]},
            source=source,
            target=f"{folder}/{target}" if folder else target,
            text=self._texts[source],
        )

    def append(self) -> Proposal:
        file = self._one(list(self._texts))
        if not file:
            return None
        return proposal(
            'Add the line "<line>" at the end of <file>.',
            "<file> holds its old text and below it the line <line>; no other file has changed.",
            {"checks": [{"kind": "text", "path": "<file>", "equals": "<text>\n<line>"}]},
            file=file,
            line=self._taste.line(),
            text=self._texts[file],
        )

    def replace(self) -> Proposal:
        """A setting, ``key=value``, whose value no other setting of the file has."""
        settings = [
            (file, match[1], match[2])
            for file, text in self._texts.items()
            for match in re.finditer(r"^(\w+)=(\w+)$", text, re.MULTILINE)
            if len(re.findall(rf"={match[2]}$", text, re.MULTILINE)) == 1
        ]
        if not settings:
            return None
        file, key, old = self._draw.choice(settings)
        new = str(int(old) + self._draw.randint(1, 9)) if old.isdecimal() else self._one(list(_WORDS))
        text = re.sub(rf"(?m)(?<=^{key}=){old}$", new, self._texts[file])
        return proposal(
            "In <file> change <old> to <new> and leave the rest as it is.",
            "In <file> the setting <key> is <new>; all its other lines are as they were.",
            {"checks": [{"kind": "text", "path": "<file>", "equals": "<text>"}]},
            file=file,
            key=key,
            old=old,
            new=new,
            text=text,
        )

    def lookup(self) -> Proposal:
        """A number beside a name that its file has once."""
        lines = [
            (file, match[1], match[2])
            for file, text in self._texts.items()
            for match in re.finditer(r"^([A-Za-z]+) (\d+)$", text, re.MULTILINE)
            if len(re.findall(rf"^{match[1]} ", text, re.MULTILINE)) == 1
        ]
        if not lines:
            return None
        file, name, number = self._draw.choice(lines)
        return proposal(
            "What is <name>'s number in <file>? Answer with the number.",
            "The answer given is <number>, and no file has changed.",
            {"checks": [{"kind": "answer", "equals": "<number>"}]},
            file=file,
            name=name,
            number=number,
        )

    def find(self) -> Proposal:
        """A word that only one file of a folder holds, where all of them were read."""
        found = []
        for folder, names in self._listed.items():
            texts = {name: self._texts.get(f"{folder}/{name}", "").split() for name in names}
            if folder != "." and all(texts.values()) and not re.search(r"\s", folder):
                words = {word for text in texts.values() for word in text if re.fullmatch(r"[A-Za-z]{4,}", word)}
                holders = {word: [name for name, text in texts.items() if word in text] for word in sorted(words)}
                found += [(folder, word, names[0]) for word, names in holders.items() if len(names) == 1]
        if not found:
            return None
        folder, word, file = self._draw.choice(found)
        return proposal(
            "Which file in the folder <folder> holds the word <word>? Answer with its name.",
            "The answer given is <file>, and no file has changed.",
            {"checks": [{"kind": "answer", "equals": "<file>"}]},
            folder=folder,
            word=word,
            file=file,
        )

    def _one(self, choices: list[str]) -> str:
        return self._draw.choice(choices) if choices else ""

    def _free(self, source: str) -> list[str]:
        """Names for a new file beside `source`; none where its folder was not listed."""
        names = self._listed.get(source.rpartition("/")[0] or ".")
        return [] if names is None else [name for stem in _STEMS if (name := f"{stem}.txt") not in names]
