"""The `memory` commands, and those of them that only read."""

import getpass
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tutelage.cli.app import ConfigOption, JsonOption, SetOption, app, emit_json, emit_rows, opened
from tutelage.cli.legible import tell
from tutelage.errors import ConfigError
from tutelage.experience import IN_USE, Experience, Kind, Status

if TYPE_CHECKING:
    from tutelage.memory.query import Hit
    from tutelage.workspace import Workspace

memory = typer.Typer(help="Query and keep the experience store.", no_args_is_help=True)
app.add_typer(memory, name="memory")


class OfKind(StrEnum):
    """`Kind` for repeatable options, which take no literals."""

    STICKER = "sticker"
    SKILL = "skill"
    GUARDRAIL = "guardrail"


TenantOption = Annotated[str | None, typer.Option("--tenant", help="Whose memory; default: as configured.")]
WhoOption = Annotated[str, typer.Option("--as", metavar="NAME", help="Who does it, for the history; default: you.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
KindsOption = Annotated[list[OfKind] | None, typer.Option("--kind", help="Only this kind; repeatable.")]
EnvironmentOption = Annotated[str | None, typer.Option("--environment", help="Only this environment.")]
FamilyOption = Annotated[str | None, typer.Option("--family", help="Only this task family.")]
StatusesOption = Annotated[list[Status] | None, typer.Option("--status", help="Only this status; repeatable.")]
TrustOption = Annotated[float, typer.Option("--min-trust", min=0, max=1, help="Only what is trusted this much.")]
IdArgument = Annotated[str, typer.Argument(metavar="ID", help="Id of an experience.")]


class Mode(StrEnum):
    """What a search scores by."""

    FUSED = "fused"
    VECTOR = "vector"
    KEYWORD = "keyword"


@contextmanager
def memory_of(
    config: Path | None, overrides: list[str] | None, tenant: str | None, *, existing: bool = True
) -> "Iterator[Workspace]":
    """The workspace of a memory command, for this tenant; later commands go on with the settings kept before."""
    mine = [f"memory.tenant={json.dumps(tenant)}"] if tenant is not None else []
    with opened(config, [*(overrides or []), *mine], existing=existing, remember=False) as workspace:
        yield workspace


def kind_names(kinds: Sequence[OfKind] | None) -> list[Kind]:
    return [kind.value for kind in kinds or ()]


def who(name: str) -> str:
    """The name that a change is made under. Raises ConfigError if it is no name."""
    if not name:
        try:
            user = getpass.getuser()
        except (KeyError, OSError):  # in a container the user may have no name
            user = ""
        return re.sub(r"[^\w.@-]", "-", user).lstrip("-.") or "somebody"
    if not re.fullmatch(r"\w[\w.@-]{0,62}", name):
        raise ConfigError(f"{name!r} is no name; use letters, digits and any of . _ @ -")
    return name


def moment(text: str | None) -> datetime | None:
    """A date or a time; UTC unless it says otherwise. Raises ConfigError if it is neither."""
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(f"{text!r} is no date or time; write 2026-01-31 or 2026-01-31T12:00") from error
    return found if found.tzinfo else found.replace(tzinfo=UTC)


@memory.command("query")
def query(
    text: Annotated[str, typer.Argument(help="What to look for, in words.")],
    kinds: KindsOption = None,
    environment: EnvironmentOption = None,
    family: FamilyOption = None,
    statuses: Annotated[
        list[Status] | None, typer.Option("--status", help="Only this status; repeatable. Default: those in use.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Whatever their status.")] = False,
    min_trust: TrustOption = 0.0,
    since: Annotated[str | None, typer.Option(help="Changed at this date or time (UTC), or later.")] = None,
    until: Annotated[str | None, typer.Option(help="Changed before this date or time (UTC).")] = None,
    exclude_task: Annotated[str | None, typer.Option(help="Leave out what was drawn from this task.")] = None,
    prefer_family: Annotated[str | None, typer.Option(help="Score this task family higher.")] = None,
    mode: Annotated[Mode, typer.Option(help="Score by meaning, by words, or by both.")] = Mode.FUSED,
    k: Annotated[int, typer.Option("-k", min=1, help="How many.")] = 5,
    explain: Annotated[bool, typer.Option("--explain", help="Show what each score is made of.")] = False,
    tenant: TenantOption = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Search the memory by meaning and by keyword."""
    from tutelage.memory.query import Query

    wanted = Query(
        text,
        kind_names(kinds),
        environment,
        family,
        () if every else statuses or IN_USE,
        min_trust=min_trust,
        since=moment(since),
        until=moment(until),
        exclude_task=exclude_task,
        prefer_family=prefer_family,
        mode=mode.value,
        k=k,
    )
    with memory_of(config, overrides, tenant) as workspace:
        rows = [_found(hit, workspace.memory.render(hit.experience)) for hit in workspace.memory.search(wanted)]
    if explain and rows and not as_json:
        for row in rows:
            tell("{score:.3f} = {made of}\n  {kind} {id} ({status}), family {family}\n  {text}".format(**row))
    else:
        columns = ("score", "kind", "family", "status", "text", "id")
        emit_rows(rows, columns, as_json=as_json, empty="nothing found")


def _found(hit: "Hit", text: str) -> dict[str, Any]:
    terms = " + ".join(f"{name} {value:.3f}" for name, value in hit.parts.items())
    return {
        "score": hit.score,
        "kind": hit.experience.kind,
        "family": hit.experience.family,
        "status": hit.experience.status.value,
        "text": text,
        "id": hit.experience.id,
        "vector": hit.vector,
        "keyword": hit.keyword,
        "parts": hit.parts,
        "made of": f"{terms}  (cosine {hit.vector:.3f}, BM25 {hit.keyword:.2f})",
        "experience": hit.experience.model_dump(mode="json"),
    }


@memory.command("list")
def list_(
    kinds: KindsOption = None,
    environment: EnvironmentOption = None,
    family: FamilyOption = None,
    statuses: StatusesOption = None,
    min_trust: TrustOption = 0.0,
    limit: Annotated[int, typer.Option(min=1, help="How many at the most; the newest.")] = 100,
    tenant: TenantOption = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """What the memory holds, oldest first, whatever its status."""
    with memory_of(config, overrides, tenant) as workspace:
        found = [
            item
            for item in workspace.memory.experiences(statuses=statuses or ())
            if (not kinds or item.kind in kind_names(kinds))
            and environment in (None, item.environment)
            and family in (None, item.family)
            and item.trust >= min_trust
        ][-limit:]
        rows = [
            {**item.model_dump(mode="json"), "kind": item.kind, "text": workspace.memory.render(item)} for item in found
        ]
    columns = ("id", "version", "kind", "environment", "family", "status", "trust", "text")
    emit_rows(rows, columns, as_json=as_json, empty="no such experiences")


@memory.command("show")
def show(
    id: IdArgument,
    tenant: TenantOption = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """One experience with its history, its uses and the steps it came from."""
    with memory_of(config, overrides, tenant) as workspace:
        versions = workspace.memory.history(id)
        uses = workspace.record.uses(id).get(id)
        steps = [
            {
                "trajectory": trajectory.id,
                "task": trajectory.task.id,
                "goal": trajectory.goal,
                "ending": trajectory.ending,
                "step": index,
                **step.model_dump(mode="json", exclude={"tokens"}),
            }
            for trajectory, step, index in workspace.memory.sources(id)
        ]
    shown = uses._asdict() if uses is not None else {"shown": 0, "sound": 0, "solved": 0}
    if as_json:
        dumped = [version.model_dump(mode="json") for version in versions]
        emit_json({"experience": dumped[-1], "versions": dumped, "uses": shown, "steps": steps})
        return
    _tell(versions[-1])
    said = "shown in {shown} episodes with memory on, of all splits: {sound} did not break, {solved} of them solved"
    print(said.format(**shown))
    _tell_history(versions)
    origins = {source.origin for source in versions[-1].sources}
    print(f"came from {len(versions[-1].sources)} sources ({', '.join(sorted(origins))}), {len(steps)} steps here:")
    for step in steps:
        cause = step["diagnosis"]["cause"]
        tell(f"  {step['trajectory']} step {step['step']}: {step['action']}  [{cause}]  {step['goal']}")


@memory.command("history")
def history(
    id: IdArgument,
    tenant: TenantOption = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """All versions of one experience: who changed what, when, and why."""
    with memory_of(config, overrides, tenant) as workspace:
        versions = workspace.memory.history(id)
    if as_json:
        emit_json([version.model_dump(mode="json") for version in versions])
    else:
        _tell_history(versions)


def _tell(item: Experience) -> None:
    tell(f"{item.kind} {item.id} v{item.version} ({item.status}), by {item.author}; trust {item.trust:.2f}")
    tell(f"tenant {item.tenant}, environment {item.environment}, family {item.family}\ngoal  {item.goal}")
    scopes = tuple(f"{scope.type} {scope.key}" for scope in item.scopes)
    more = {"core": item.core, "exact detail": item.verbatim, "about": scopes, "touched": item.touched}
    more |= {"merged from": item.merged, "absorbed by": item.absorbed_by}
    for key, value in [*item.content.model_dump(exclude={"kind"}).items(), *more.items()]:
        if value or key not in more:
            tell(f"{key}: {value if isinstance(value, str) else ''}".rstrip())
        if not isinstance(value, str):
            for entry in value:
                tell(f"  - {entry}")


def _tell_history(versions: Sequence[Experience]) -> None:
    """One line per version, oldest first."""
    for before, item in zip([None, *versions[:-1]], versions, strict=True):
        told = ", ".join(f"{name} {_number(value)}" for name, value in item.change.numbers.items())
        changed = ", ".join(_changed(before, item)) if before else ""
        why = ": ".join(part for part in (item.change.by, item.change.reason) if part)
        extra = "; ".join(part for part in (told, f"changed: {changed}" if changed else "") if part)
        print(
            f"  v{item.version}  {item.created:%Y-%m-%d %H:%M}  {item.status:<11}  {why}{f'  ({extra})' * bool(extra)}"
        )


def _changed(before: Experience, item: Experience) -> list[str]:
    names = [name for name in type(item).model_fields if name not in ("version", "created", "change")]
    return [name for name in names if getattr(before, name) != getattr(item, name)]


def _number(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.3g}"


@memory.command("stats")
def stats(
    tenant: TenantOption = None, config: ConfigOption = None, overrides: SetOption = None, as_json: JsonOption = False
) -> None:
    """How much of what the memory holds."""
    with memory_of(config, overrides, tenant) as workspace:
        figures = workspace.memory.stats()
    if as_json:
        emit_json(figures)
        return
    for key, value in figures.items():
        print(f"{key}: {value}")


@memory.command("reindex")
def reindex(tenant: TenantOption = None, config: ConfigOption = None, overrides: SetOption = None) -> None:
    """Throw the search index away and build it anew from the record."""
    with memory_of(config, overrides, tenant) as workspace:
        print(f"{workspace.memory.reindex()} experiences indexed")
