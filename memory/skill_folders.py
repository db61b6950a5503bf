"""Experiences as Agent Skills: folders with a SKILL.md that other agents load (agentskills.io/specification).

The front matter and the Markdown are for them; `references/history.jsonl` holds all versions, so that nothing is lost
on the way back. What someone changed in the SKILL.md comes back as one more version.
"""

import json
import os
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

from tutelage.errors import MissingPart, RecordError
from tutelage.experience import Change, Experience, Kind, Source
from tutelage.memory.by_hand import core_of
from tutelage.memory.files import History, read_jsonl, write_jsonl
from tutelage.memory.skill_text import DESCRIPTION, HEADINGS, body, describe, foreign, parse
from tutelage.types import now

FILE = "SKILL.md"
HISTORY = Path("references") / "history.jsonl"
LARGEST = 1_000_000
"""Bytes of a SKILL.md that is read."""


@dataclass(frozen=True)
class Place:
    """Where skills apply that do not say it themselves."""

    environment: str = ""
    family: str = ""


def write_folders(histories: Iterable[History], folder: Path) -> list[Path]:
    """Write one skill folder per experience; each appears complete or not at all, and replaces the one of its name."""
    yaml = _yaml()
    paths = []
    for history in histories:
        path = folder / folder_name(history[-1])
        part = folder / f".{path.name}.{os.getpid()}.part"
        part.mkdir(parents=True)
        try:
            (part / HISTORY).parent.mkdir()
            (part / FILE).write_text(_document(history[-1], yaml), encoding="utf-8", newline="\n")
            write_jsonl([history], part / HISTORY)
            if path.exists():
                shutil.rmtree(path)
            part.rename(path)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        paths.append(path)
    return paths


def read_folders(folder: Path, origin: str, place: Place | None = None) -> list[History]:
    """Read the skill folders in a folder, or the one that it is.

    A folder with our history whose SKILL.md is as we wrote it is just that history; a changed SKILL.md adds a version
    with the changed words. One without our history (written elsewhere) becomes one version.

    Args:
        origin: where words come from that name no source, e.g. ``import:NAME``.
        place: environment and family of skills that do not name theirs.

    Raises:
        RecordError: naming the first folder that cannot be read and why.
    """
    if not folder.is_dir():
        raise RecordError(f"cannot read {folder}: it is no folder")
    found = [folder] if (folder / FILE).exists() else sorted(path.parent for path in folder.glob(f"*/{FILE}"))
    if not found:
        raise RecordError(f"{folder} holds no {FILE}")
    histories: dict[str, History] = {}
    for path in (item for item in found if not item.name.startswith(".")):
        history = _read(path, origin, place or Place())
        if history[-1].id in histories:
            raise RecordError(f"{path}: {history[-1].id} is in another folder too")
        histories[history[-1].id] = history
    return list(histories.values())


def folder_name(experience: Experience) -> str:
    """At most 64 lower-case letters, digits and single hyphens, one name per id."""
    family = re.sub(r"[^a-z0-9]+", "-", experience.family.lower()).strip("-")[:40].strip("-")
    mark = sha256(experience.id.encode()).hexdigest()[:10]
    return "-".join(part for part in (family, experience.kind, mark) if part)


def _document(experience: Experience, yaml: Any) -> str:
    metadata = {
        "tutelage-id": experience.id,
        "tutelage-version": str(experience.version),
        "tutelage-kind": experience.kind,
        "tutelage-status": experience.status.value,
        "tutelage-environment": experience.environment,
        "tutelage-family": experience.family,
    }
    front = {
        "name": folder_name(experience),
        "description": describe(experience),
        # Some readers take the first three hyphens for the end of the front matter.
        "metadata": {key: value.replace("---", "—") for key, value in metadata.items()},
    }
    text = yaml.safe_dump(front, sort_keys=False, allow_unicode=True, width=10**6, default_flow_style=False)
    return f"---\n{text}---\n\n{body(experience)}"


def _read(path: Path, origin: str, place: Place) -> History:
    front, text = _front(path / FILE)
    if not (path / HISTORY).exists():
        return (_single(path, front, text, origin, place),)
    _refuse_link(path / HISTORY)
    histories = read_jsonl(path / HISTORY, origin)
    if len(histories) != 1:
        raise RecordError(f"{path / HISTORY} holds {len(histories)} experiences; a skill folder is one")
    newest = histories[0][-1]
    changed = _changes(path / FILE, newest, front, text)
    if not changed:
        return histories[0]
    source = Source(trajectory="", task="", origin=origin)
    sources = newest.sources if source in newest.sources else (*newest.sources, source)
    fields = {
        **changed,
        **core_of(newest, changed),
        "version": newest.version + 1,
        "created": now(),
        "sources": sources,
    }
    change = Change(by=origin, reason=f"{', '.join(changed)} changed in {FILE}")
    return (*histories[0], newest.model_copy(update={**fields, "change": change}))


def _changes(path: Path, newest: Experience, front: dict[str, Any], text: str) -> dict[str, object]:
    """The fields that someone changed in the document since it was written."""
    changed: dict[str, object] = {}
    if front["description"] != describe(newest):
        changed["core"] = front["description"]
    written = _plain(body(newest))
    if text.strip() == written.strip():
        return changed
    before, after = (_parsed(path, said, newest.kind) for said in (written, text))
    for name, old, new in zip(("goal", "content", "verbatim"), before, after, strict=True):
        if new != old:
            if getattr(newest, name) != old:
                raise RecordError(f"{path}: Markdown cannot carry its {name}; change it with `tutelage memory edit`")
            changed[name] = new
    return changed


def _parsed(path: Path, text: str, kind: Kind) -> tuple[str, Any, str]:
    try:
        return parse(text, kind)
    except RecordError as error:
        raise RecordError(f"{path}: {error}") from error


def _single(path: Path, front: dict[str, Any], text: str, origin: str, place: Place) -> Experience:
    """A skill without our history."""
    data = front.get("metadata")
    said = {str(key): str(value) for key, value in data.items()} if isinstance(data, dict) else {}
    environment = said.get("tutelage-environment", place.environment)
    family = said.get("tutelage-family", place.family)
    if not environment or not family:
        raise RecordError(
            f"{path / FILE} names no environment and family that it is for; give --environment and --family"
        )
    kind = said.get("tutelage-kind")
    try:
        if kind in HEADINGS:
            goal, content, verbatim = parse(text, cast(Kind, kind))
        else:
            goal, content, verbatim = str(front["description"]), foreign(text), ""
    except RecordError as error:
        raise RecordError(f"{path / FILE}: {error}") from error
    # The same skill read again is the same experience.
    mark = sha256("\n".join((str(front["name"]), environment, family)).encode()).hexdigest()[:16]
    return Experience(
        id=f"exp_{mark}",
        environment=environment,
        family=family,
        goal=goal,
        content=content,
        core=str(front["description"])[:DESCRIPTION],
        sources=(Source(trajectory="", task="", origin=origin),),
        author=origin,
        verbatim=verbatim,
        change=Change(by=origin, reason=f"from {path.name}/{FILE}"),
    )


def _front(path: Path) -> tuple[dict[str, Any], str]:
    """Front matter and body of a SKILL.md. Raises RecordError if it is none."""
    yaml = _yaml()
    _refuse_link(path)
    try:
        if path.stat().st_size > LARGEST:
            raise RecordError(f"{path} is larger than {LARGEST} bytes")
        text = path.read_text(encoding="utf-8")  # any line ending becomes \n
    except OSError as error:
        raise RecordError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise RecordError(f"{path} is not UTF-8 text") from error
    match = re.match(r"---[ \t]*\n(.*?\n)---[ \t]*(?:\n|\Z)", text, re.DOTALL)
    if match is None:
        raise RecordError(f"{path} has no front matter between two lines of ---")
    try:
        front = yaml.safe_load(match[1])
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise RecordError(f"{path}: its front matter is not YAML: {error}") from error
    for name in ("name", "description"):
        if not isinstance(front, dict) or not isinstance(front.get(name), str) or not front[name].strip():
            raise RecordError(f"{path}: its front matter gives no {name}")
    try:
        json.dumps(front, default=str, ensure_ascii=False).encode()
    except (UnicodeEncodeError, TypeError) as error:  # half a surrogate pair; keys that are no texts
        raise RecordError(f"{path}: its front matter is no plain text") from error
    return front, text[match.end() :]


def _plain(text: str) -> str:
    """As it reads from a file, with one kind of line ending."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _refuse_link(path: Path) -> None:
    if path.is_symlink() or path.parent.is_symlink():
        raise RecordError(f"{path} is a link; only files of the folder itself are read")


def _yaml() -> Any:
    try:
        import yaml
    except ModuleNotFoundError as error:
        raise MissingPart("PyYAML is missing: pip install 'tutelage[memory]'") from error
    return yaml
