"""What judge and distiller are asked: requests built from a trajectory, and read back from their text.

The scripted answers (`agents.rules`) see nothing but this text, as a language model would.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tutelage.agents.prompts import prompt
from tutelage.conversation import transcript
from tutelage.tools import signature
from tutelage.types import Experience, Message, Trajectory, Verdict

SUCCESS, FAILURE = "success", "failure"

_DELIMITER = re.compile(r"</?(?:tools|transcript|meanings|existing)>")
_STRUCTURE = re.compile(r"\\*(?:Step \d+$|(?:Goal|Observation|Final observation|Thought|Action|Result):)")
"""How the transcript's own lines begin; results of tools are free text and may look like them."""
_MEANING = re.compile(r"(\d+): (.*)")


@dataclass(frozen=True)
class Turn:
    """One step as the transcript tells it."""

    observation: str
    action: str
    result: str
    meaning: str = ""


@dataclass(frozen=True)
class Request:
    """A request read back."""

    environment: str
    goal: str
    turns: tuple[Turn, ...]
    successful: bool
    cited: tuple[int, ...]
    tools: tuple[str, ...] = ()
    """Names of the tools, if it was an episode of tools."""


def judge_request(trajectory: Trajectory) -> list[Message]:
    body = [
        f"Environment: {trajectory.task.environment}",
        *_tools(trajectory),
        _fence("transcript", _transcript(trajectory)),
    ]
    return [Message(role="system", content=prompt("judge")), Message(role="user", content="\n".join(body))]


def distiller_request(trajectory: Trajectory, verdict: Verdict, existing: Sequence[Experience] = ()) -> list[Message]:
    meanings = [f"{index}: {step.meaning}" for index, step in enumerate(trajectory.steps)]
    body = [
        f"Environment: {trajectory.task.environment}",
        *_tools(trajectory),
        _fence("transcript", _transcript(trajectory)),
        _fence("meanings", "\n".join(meanings)),
        f"Outcome: {SUCCESS if trajectory.success else FAILURE}",
        f"Reason: {' '.join(verdict.reason.split())}",
        f"Cited steps: {' '.join(map(str, verdict.cited))}".rstrip(),
        _fence("existing", "\n".join(item.content.model_dump_json() for item in existing)),
    ]
    return [Message(role="system", content=prompt("distiller")), Message(role="user", content="\n".join(body))]


def read_request(text: str) -> Request:
    """Read a request of either kind back from its text."""
    environment = re.search(r"^Environment: (\S+)$", text, re.MULTILINE)
    outside = text.partition("\n</meanings>")[2]  # the fence cannot be forged, what precedes it can
    cited = re.search(r"^Cited steps:([ \d]*)$", outside, re.MULTILINE)
    meanings = {
        int(match[1]): match[2]
        for line in _fenced("meanings", text).split("\n")
        if (match := _MEANING.fullmatch(line)) is not None
    }
    goal, turns = _read_transcript(_fenced("transcript", text), meanings)
    return Request(
        environment=environment[1] if environment else "",
        goal=goal,
        turns=turns,
        successful=f"\nOutcome: {SUCCESS}\n" in outside,
        cited=tuple(int(step) for step in (cited[1].split() if cited else ())),
        tools=tuple(line.partition("(")[0] for line in _fenced("tools", text).split("\n") if "(" in line),
    )


def _tools(trajectory: Trajectory) -> list[str]:
    return [_fence("tools", "\n".join(map(signature, trajectory.tools)))] if trajectory.tools else []


def _transcript(trajectory: Trajectory) -> str:
    """The transcript, in which no line of a goal or of an observation can pass for a line of its own."""
    steps = [
        step.model_copy(update={"observation": _escaped(step.observation), "after": _escaped(step.after)})
        for step in trajectory.steps
    ]
    return transcript(_escaped(trajectory.goal), steps)


def _escaped(text: str) -> str:
    return "\n".join(f"\\{line}" if _STRUCTURE.match(line) else line for line in text.split("\n"))


def _unescaped(lines: list[str]) -> str:
    return "\n".join(line[1:] if line.startswith("\\") and _STRUCTURE.match(line) else line for line in lines)


def _read_transcript(text: str, meanings: dict[int, str]) -> tuple[str, tuple[Turn, ...]]:
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
                meaning=meanings.get(index, ""),
            )
        )
    return _unescaped("\n".join(head).removeprefix("Goal: ").split("\n")), tuple(turns)


def _blocks(text: str) -> list[list[str]]:
    """Lines before the first step, then the lines of each step."""
    blocks: list[list[str]] = [[]]
    for line in text.split("\n"):
        if line == f"Step {len(blocks) - 1}":
            blocks.append([])
        blocks[-1].append(line)
    return blocks


def _fence(tag: str, text: str) -> str:
    """`text` as delimited data; what looks like a delimiter inside it is defused."""
    return f"<{tag}>\n{_DELIMITER.sub('[tag]', text)}\n</{tag}>"


def _fenced(tag: str, text: str) -> str:
    start, end = text.find(f"\n<{tag}>\n"), text.find(f"\n</{tag}>")
    return text[start + len(tag) + 4 : end] if 0 <= start < end else ""
