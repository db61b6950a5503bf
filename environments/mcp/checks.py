"""Whether a finished episode is what its task asked for."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tutelage.environments.mcp.taskfile import (
    Absent,
    Answer,
    Check,
    Exists,
    Expected,
    FileText,
    ToolCall,
    ToolResult,
)

MAX_BYTES = 1_000_000
"""A longer file is not looked into; its check fails."""


@dataclass(frozen=True)
class Finished:
    """What the checks look at."""

    workdir: Path
    answer: str
    result: Callable[[ToolCall], str | None]
    """What a tool returns now; None if it fails."""


def holds(check: Check, finished: Finished) -> bool:
    """Raises: EnvironmentBroken: the server is gone."""
    match check:
        case Exists():
            return _inside(finished.workdir, check.path) is not None
        case Absent():
            return not (finished.workdir / check.path).is_symlink() and not (finished.workdir / check.path).exists()
        case FileText():
            return _fits(_text(finished.workdir, check.path), check)
        case ToolResult():
            return _fits(finished.result(ToolCall(tool=check.tool, arguments=check.arguments)), check)
        case Answer():
            return _plain(finished.answer) == _plain(check.equals)


def _inside(workdir: Path, path: str) -> Path | None:
    """The file if it exists; a link that leads out of the work folder counts as none."""
    try:
        real = (workdir / path).resolve(strict=True)
    except (OSError, RuntimeError):
        return None
    return real if real.is_relative_to(workdir) else None


def _text(workdir: Path, path: str) -> str | None:
    real = _inside(workdir, path)
    if real is None or not real.is_file() or real.stat().st_size > MAX_BYTES:
        return None
    try:
        return real.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def _fits(text: str | None, expected: Expected) -> bool:
    if text is None:
        return False
    if expected.equals is not None:
        return text.strip() == expected.equals.strip()
    return (expected.contains or "") in text


def _plain(answer: str) -> str:
    return " ".join(answer.split()).rstrip(".").casefold()
