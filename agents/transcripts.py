"""Recorded text as delimited data: fences, the transcript of an episode, and both read back.

Whatever a page, a tool or an agent wrote stands inside a fence, where it can neither close the fence nor pass for
a line of the transcript's own. Escaping loses nothing: what is read back is what was put in.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tutelage.agents.views import Seen

TAGS = (
    "about",
    "correction",
    "draft",
    "drafts",
    "existing",
    "experience",
    "exploration",
    "feedback",
    "guide",
    "hint",
    "known",
    "meanings",
    "persona",
    "reason",
    "reply",
    "situation",
    "stickers",
    "tools",
    "transcript",
)
"""Names of all fences; none of them can be forged inside any other."""

_ANY_TAG = rf"(?=[\\\s]*/?[\\\s]*(?:{'|'.join(TAGS)})[\\\s]*/?>)"
_DELIMITER = re.compile(f"<{_ANY_TAG}", re.IGNORECASE)
_DEFUSED = re.compile(rf"<\\{_ANY_TAG}", re.IGNORECASE)
_STRUCTURE = re.compile(r"\\*(?:Step \d+$|(?:Goal|Observation|Final observation|Thought|Action|Result):)")
"""How the transcript's own lines begin; results of tools are free text and may look like them."""
_MEANING = re.compile(r"(\d+): (.*)", re.DOTALL)


@dataclass(frozen=True)
class Turn:
    """One step as the transcript tells it."""

    observation: str
    action: str
    result: str
    meaning: str = ""


def fence(tag: str, text: str) -> str:
    """`text` as delimited data; what looks like a delimiter inside it gets a backslash after its ``<``."""
    assert tag in TAGS, f"{tag} is not among the fences that are kept from being forged"
    defused = _DELIMITER.sub(r"<\\", text)
    return f"<{tag}>\n{defused}\n</{tag}>"


def fenced(tag: str, text: str) -> str:
    """What stands in the first fence `tag` of a request, as it was before `fence`; empty if there is none."""
    text = "\n" + text
    start = text.find(f"\n<{tag}>\n")
    end = text.find(f"\n</{tag}>", start)
    return _DEFUSED.sub("<", text[start + len(tag) + 4 : end]) if 0 <= start < end else ""


def one_line(text: str) -> str:
    return " ".join(text.split())


def transcript(goal: str, steps: Sequence[Seen], final: str) -> str:
    """An episode as plain text: numbered steps, no rewards.

    No line of a goal or of an observation can pass for a line of the transcript's own.
    """
    lines = [f"Goal: {escaped(goal)}"]
    for index, step in enumerate(steps):
        lines += [f"Step {index}", "Observation:", escaped(step.observation)]
        if step.thought:
            lines.append(f"Thought: {one_line(step.thought)}")
        lines += [f"Action: {_flat(step.action)}", f"Result: {_flat(step.result)}"]
    if steps:
        lines += ["Final observation:", escaped(final)]
    return "\n".join(lines)


def meanings(steps: Sequence[Seen]) -> str:
    """What each action meant, one numbered line each."""
    return "\n".join(f"{index}: {_flat(step.meaning)}" for index, step in enumerate(steps))


def read_transcript(text: str, meant: str = "") -> tuple[str, tuple[Turn, ...]]:
    """Goal and steps of a `transcript`, with the `meanings` of its actions if they were told."""
    known = dict(_read_meanings(meant))
    head, *blocks = _blocks(text)
    turns = []
    for index, block in enumerate(blocks):
        at = next((n for n, line in enumerate(block) if line.startswith("Action: ")), len(block))
        told = next((n for n in range(at, -1, -1) if n < len(block) and block[n].startswith("Thought: ")), at)
        rest = block[at:]
        result = next((line for line in rest if line.startswith("Result: ")), "Result: ")
        turns.append(
            Turn(
                observation=_unescaped(block[2:told]),
                action=rest[0].removeprefix("Action: ") if rest else "",
                result=result.removeprefix("Result: "),
                meaning=known.get(index, ""),
            )
        )
    return _unescaped("\n".join(head).removeprefix("Goal: ").split("\n")), tuple(turns)


def escaped(text: str) -> str:
    """`text` with a backslash before every line that could pass for the transcript's own."""
    return "\n".join(f"\\{line}" if _STRUCTURE.match(line) else line for line in text.split("\n"))


def _unescaped(lines: list[str]) -> str:
    return "\n".join(line[1:] if line.startswith("\\") and _STRUCTURE.match(line) else line for line in lines)


def _read_meanings(text: str) -> Iterator[tuple[int, str]]:
    for line in text.split("\n"):
        match = _MEANING.fullmatch(line)
        if match is not None:
            yield int(match[1]), match[2]


def _blocks(text: str) -> list[list[str]]:
    """Lines before the first step, then the lines of each step."""
    blocks: list[list[str]] = [[]]
    for line in text.split("\n"):
        if line == f"Step {len(blocks) - 1}":
            blocks.append([])
        blocks[-1].append(line)
    return blocks


def _flat(text: str) -> str:
    """On one line and otherwise as it is: other line separators do not end a line of the transcript."""
    return text.replace("\n", " ")
