"""What judge and distiller are asked: requests built from their views, and read back from their text.

The scripted answers (`agents.rules`) see nothing but this text, as a language model would.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tutelage.agents.prompts import prompt
from tutelage.agents.transcripts import Turn, fence, fenced, meanings, one_line, read_transcript, transcript
from tutelage.agents.views import DistillerView, JudgeView
from tutelage.tools import signature
from tutelage.types import Message, Tool

SUCCESS, FAILURE = "success", "failure"
_DECIDED = re.compile(r"\nOutcome: (?P<outcome>\w+)\nCited steps:(?P<cited>[ \d]*)\n")


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


def judge_request(view: JudgeView) -> list[Message]:
    body = [
        f"Environment: {view.environment}",
        *_tools(view.tools),
        *([fence("hint", view.hint.reveal())] if view.hint is not None else []),
        fence("transcript", transcript(view.goal, view.steps, view.final)),
    ]
    return [Message(role="system", content=prompt("judge")), Message(role="user", content="\n".join(body))]


def distiller_request(view: DistillerView) -> list[Message]:
    body = [
        f"Environment: {view.environment}",
        *_tools(view.tools),
        fence("transcript", transcript(view.goal, view.steps, view.final)),
        fence("meanings", meanings(view.steps)),
        f"Outcome: {SUCCESS if view.successful else FAILURE}",
        f"Cited steps: {' '.join(map(str, view.cited))}".rstrip(),
        fence("reason", one_line(view.reason)),
        fence("existing", "\n".join(f"{n}: {item.model_dump_json()}" for n, item in enumerate(view.existing, 1))),
    ]
    return [Message(role="system", content=prompt("distiller")), Message(role="user", content="\n".join(body))]


def read_request(text: str) -> Request:
    """Read a request of either kind back from its text."""
    environment = re.search(r"^Environment: (\S+)$", text, re.MULTILINE)
    # the fence cannot be forged; what precedes it, and what follows these two lines, can
    decided = _DECIDED.match(text.partition("\n</meanings>")[2])
    goal, turns = read_transcript(fenced("transcript", text), fenced("meanings", text))
    return Request(
        environment=environment[1] if environment else "",
        goal=goal,
        turns=turns,
        successful=decided is not None and decided["outcome"] == SUCCESS,
        cited=tuple(int(step) for step in (decided["cited"].split() if decided else ())),
        tools=tuple(line.partition("(")[0] for line in fenced("tools", text).split("\n") if "(" in line),
    )


def _tools(tools: Sequence[Tool]) -> list[str]:
    return [fence("tools", "\n".join(map(signature, tools)))] if tools else []
