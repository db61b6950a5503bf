"""Trajectories in and out: lossless JSONL both ways, and ATIF for other tools.

ATIF is the Agent Trajectory Interchange Format (Harbor RFC 0001), written here as version 1.8.
"""

import errno
import json
import math
import os
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tutelage.calls import CallError, parse_call
from tutelage.conversation import conversation
from tutelage.errors import RecordError
from tutelage.record import Record
from tutelage.tools import to_openai
from tutelage.types import Step, Trajectory

ATIF_VERSION = "ATIF-v1.8"


def write_jsonl(trajectories: Iterable[Trajectory], path: Path) -> int:
    """Write one trajectory per line; the file appears complete or not at all. Returns how many."""
    lines = [trajectory.model_dump_json() + "\n" for trajectory in trajectories]
    write_whole(path, "".join(lines))
    return len(lines)


def read_jsonl(path: Path) -> list[Trajectory]:
    """Read what `write_jsonl` wrote; empty lines are skipped.

    Raises:
        RecordError: naming the first line that is not a trajectory and what is wrong with it.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise RecordError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise RecordError(f"{path} is not UTF-8 text") from error
    trajectories: list[Trajectory] = []
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            trajectory = Trajectory.model_validate_json(line)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            raise RecordError(f"{path}, line {number}: {place + ': ' if place else ''}{first['msg']}") from error
        if trajectory.id in seen:
            raise RecordError(f"{path}, line {number}: {trajectory.id} is already on line {seen[trajectory.id]}")
        seen[trajectory.id] = number
        trajectories.append(trajectory)
    return trajectories


def import_jsonl(record: Record, path: Path, *, cycle: int = 0, arm: str = "imported", name: str = "") -> int:
    """Add all trajectories of a file, or none; ones that the record has are passed over. Returns how many were new.

    Args:
        name: of whom or what the file is (default: its own name); its trajectories get the origin ``import:NAME``,
            whatever they say, for what is in a file may have been written by anyone.

    Raises:
        RecordError: as `read_jsonl`; the record is as it was.
    """
    origin = f"import:{name or path.stem}"
    trajectories = [item.model_copy(update={"origin": origin}) for item in read_jsonl(path)]
    with record.transaction():
        return sum(
            record.add_trajectory(trajectory, key=f"{arm}/{trajectory.id}", cycle=cycle, arm=arm)
            for trajectory in trajectories
            if not record.has_trajectory(trajectory.id)
        )


def write_atif(trajectories: Iterable[Trajectory], folder: Path) -> list[Path]:
    """Write one ATIF document per trajectory, named by its id."""
    paths = []
    for trajectory in trajectories:
        path = folder / f"{trajectory.id}.json"
        write_whole(path, json.dumps(to_atif(trajectory), ensure_ascii=False, allow_nan=False, indent=1))
        paths.append(path)
    return paths


def to_atif(trajectory: Trajectory) -> dict[str, Any]:
    """The trajectory as an ATIF document.

    The observation after each action stands with the agent step that caused it, so only the first
    observation, and notes where there are some, are user steps.
    """
    steps: list[dict[str, Any]] = [{"source": "system", "message": trajectory.system}]
    context: list[int] = []
    for index, step in enumerate(trajectory.steps):
        if index == 0:
            steps.append({"source": "user", "message": conversation(trajectory)[1].content})
        elif step.notes:
            steps.append({"source": "user", "message": "\n".join(f"Note: {note}" for note in step.notes)})
        steps.append(_agent_step(step, index, context))
    for number, entry in enumerate(steps, start=1):
        entry["step_id"] = number
    sampled = sum(len(step.tokens.sampled) for step in trajectory.steps if step.tokens)
    outcome = {"success": trajectory.success, "reward": _finite(trajectory.reward), "ending": trajectory.ending.value}
    return {
        "schema_version": ATIF_VERSION,
        "trajectory_id": trajectory.id,
        "agent": {
            "name": "tutelage",
            "version": version("tutelage"),
            "model_name": trajectory.policy,
            **({"tool_definitions": to_openai(trajectory.tools)} if trajectory.tools else {}),
        },
        "steps": steps,
        "final_metrics": {
            "total_steps": len(steps),
            **({"total_completion_tokens": sampled} if sampled else {}),
            "extra": outcome,
        },
        "extra": {
            "task": trajectory.task.model_dump(mode="json"),
            "goal": trajectory.goal,
            "memory": trajectory.memory,
            "shown": [item.model_dump(mode="json") for item in trajectory.shown],
            "error": trajectory.error,
            "created": trajectory.created.isoformat(),
            "seconds": _finite(trajectory.seconds),
        },
    }


def _agent_step(step: Step, index: int, context: list[int]) -> dict[str, Any]:
    """One turn; `context` holds all tokens before it and grows by it."""
    entry: dict[str, Any] = {"source": "agent", "message": step.reply}
    result: dict[str, Any] = {"content": step.after}
    try:
        call = parse_call(step.action)
    except CallError:
        pass  # not well-formed: the diagnosis in `extra` says so, and there is no call to tell of
    else:
        call_id = f"call_{index}"
        named = len(call.args) == 1 and isinstance(call.args[0], dict)
        arguments = call.args[0] if named else {"positional": list(call.args)}
        entry["tool_calls"] = [{"tool_call_id": call_id, "function_name": call.name, "arguments": arguments}]
        result["source_call_id"] = call_id
    entry["observation"] = {"results": [result]}
    if step.tokens:
        context += step.tokens.prompt
        entry["metrics"] = {
            "prompt_tokens": len(context),
            "completion_tokens": len(step.tokens.sampled),
            "prompt_token_ids": list(context),
            "completion_token_ids": list(step.tokens.sampled),
        }
        if all(map(math.isfinite, step.tokens.logprobs)):
            entry["metrics"]["logprobs"] = list(step.tokens.logprobs)
        context += step.tokens.sampled
    entry["extra"] = {
        "meaning": step.meaning,
        "diagnosis": step.diagnosis.model_dump(mode="json"),
        "reward": _finite(step.reward),
        "blocked_by": step.blocked_by,
    }
    return entry


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def write_whole(path: Path, text: str) -> None:
    """Write a file that appears complete or not at all, where its folder is.

    Through a symbolic link, and into what is no file (a pipe, a device) as it is, which stays what it is.

    Raises:
        RecordError: it cannot be written; nothing of it is left behind.
    """
    try:
        target = Path(os.path.realpath(path))
        if target.is_symlink():  # links in a circle
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        if target.exists() and not target.is_file() and not target.is_dir():
            target.write_text(text, encoding="utf-8", newline="\n")
            return
        part = target.with_name(f".{target.name[:200]}.{os.getpid()}.part")
        try:
            part.write_text(text, encoding="utf-8", newline="\n")
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise RecordError(f"cannot write {path}: {error.strerror}") from error
