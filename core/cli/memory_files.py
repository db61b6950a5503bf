"""The `memory` commands for files: export and import, as JSONL or as Agent Skills folders."""

import re
from collections import Counter
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tutelage.cli.app import ConfigOption, JsonOption, SetOption, emit_json, emit_rows
from tutelage.cli.memory import (
    EnvironmentOption,
    FamilyOption,
    KindsOption,
    StatusesOption,
    TenantOption,
    WhoOption,
    kind_names,
    memory,
    memory_of,
    who,
)
from tutelage.errors import ConfigError, RecordError
from tutelage.experience import IN_USE, Experience

if TYPE_CHECKING:
    from tutelage.memory.exchange import Entry
    from tutelage.memory.files import History


class Format(StrEnum):
    """File formats of experiences."""

    JSONL = "jsonl"
    SKILLS = "skills"


@memory.command("export")
def export(
    out: Annotated[Path, typer.Argument(help="File to write; for skills, the folder to put their folders in.")],
    format: Annotated[
        Format, typer.Option(help="jsonl, or skills: Agent Skills folders for other agents. Both are lossless.")
    ] = Format.JSONL,
    kinds: KindsOption = None,
    environment: EnvironmentOption = None,
    family: FamilyOption = None,
    statuses: StatusesOption = None,
    every: Annotated[bool, typer.Option("--all", help="Skills: those out of use and in quarantine too.")] = False,
    tenant: TenantOption = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
) -> None:
    """Write experiences with all their versions; skills only those in use, unless asked for."""
    wanted = statuses or (IN_USE if format is Format.SKILLS and not every else ())
    with memory_of(config, overrides, tenant) as workspace:
        histories = [
            tuple(workspace.memory.history(item.id))
            for item in workspace.memory.experiences(statuses=wanted)
            if (not kinds or item.kind in kind_names(kinds))
            and environment in (None, item.environment)
            and family in (None, item.family)
        ]
    try:
        _write(histories, out, format)
    except OSError as error:
        raise RecordError(f"cannot write {error.filename or out}: {error.strerror}") from error
    print(f"{len(histories)} experiences written to {out}")


def _write(histories: "Sequence[History]", out: Path, format: Format) -> None:
    from tutelage.memory.files import write_jsonl
    from tutelage.memory.skill_folders import write_folders

    if format is Format.JSONL:
        write_jsonl(histories, out)
    else:
        out.mkdir(parents=True, exist_ok=True)
        write_folders(histories, out)


@memory.command("import")
def import_(
    path: Annotated[Path, typer.Argument(help="JSONL file, or a folder of Agent Skills folders (or one of them).")],
    origin: Annotated[
        str, typer.Option("--name", help="Whom it comes from: trusted as import:NAME. Default: the name of the file.")
    ] = "",
    own: Annotated[
        bool, typer.Option("--own", help="It is your own export: keep origins, statuses and reasons as they are.")
    ] = False,
    take: Annotated[
        bool, typer.Option("--take", help="Where both sides changed something, go on with the file's words.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would come in.")] = False,
    environment: Annotated[str, typer.Option(help="For skills that name none: where they apply.")] = "",
    family: Annotated[str, typer.Option(help="For skills that name none: the task family they are for.")] = "",
    name: WhoOption = "",
    tenant: TenantOption = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take experiences in from a file or folder, and say what became of each; all of it or, after an error, nothing.

    What is new or newer comes in, on trial or, if its origin is not trusted enough, into quarantine.
    """
    from tutelage.memory.exchange import Importer, Terms
    from tutelage.memory.files import read_jsonl
    from tutelage.memory.skill_folders import Place, read_folders

    terms = Terms(_origin(origin, path), own=own, take=take)
    words = f"user:{who(name)}" if own else terms.origin
    histories = read_folders(path, words, Place(environment, family)) if path.is_dir() else read_jsonl(path, words)
    with memory_of(config, overrides, tenant, existing=False) as workspace:
        importer = Importer(workspace.memory, terms)
        entries = importer.compare(histories) if dry_run else importer.take(histories)
        texts = [workspace.memory.render(entry.theirs) for entry in entries]
    _report(entries, texts, dry_run, as_json)


def _origin(name: str, path: Path) -> str:
    if name and not re.fullmatch(r"\w[\w.-]{0,62}", name):
        raise ConfigError(f"{name!r} is no name; use letters, digits and any of . _ -")
    return name or re.sub(r"[^\w.-]", "-", path.resolve().stem).lstrip("-.")[:63] or "file"


def _report(entries: "Sequence[Entry]", texts: Sequence[str], dry_run: bool, as_json: bool) -> None:
    rows = [
        {
            "finding": entry.finding.value,
            "kind": entry.theirs.kind,
            "id": entry.id,
            "becomes": entry.status.value if entry.status else "",
            "why": entry.reason,
            "text": text,
            "theirs": _named(entry.theirs),
        }
        for entry, text in zip(entries, texts, strict=True)
    ]
    counts = Counter(entry.finding.value for entry in entries)
    if as_json:
        emit_json({"written": not dry_run, "counts": counts, "entries": rows})
        return
    emit_rows(rows, ("finding", "kind", "id", "becomes", "why", "text"), as_json=False, empty="nothing in it")
    said = ", ".join(f"{count} {name}" for name, count in counts.items()) or "nothing"
    done = "nothing was written" if dry_run else f"{sum(bool(entry.added) for entry in entries)} taken in"
    print(f"{said}; {done}")


def _named(theirs: Experience) -> dict[str, str | int]:
    return {"id": theirs.id, "version": theirs.version, "environment": theirs.environment, "family": theirs.family}
