"""The `memory` commands that write: add, edit, approve, retire, restore, undo, forget. Each says who, and why."""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tutelage.cli.app import ConfigOption, JsonOption, SetOption, emit_json
from tutelage.cli.legible import tell
from tutelage.cli.memory import IdArgument, TenantOption, WhoOption, YesOption, memory, memory_of, who
from tutelage.designs import DESIGNED
from tutelage.errors import ConfigError, RecordError
from tutelage.experience import Change, Experience, Kind, Status

if TYPE_CHECKING:
    from tutelage.record_experiences import Tombstone
    from tutelage.workspace import Workspace

IdsArgument = Annotated[list[str], typer.Argument(metavar="ID...", help="Ids of experiences.")]
ReasonOption = Annotated[str, typer.Option("--reason", "-m", help="Why; kept in the history.")]

FIELDS: dict[str, Kind] = {
    "conditions": "sticker",
    "question": "sticker",
    "preconditions": "skill",
    "procedure": "skill",
    "verification": "skill",
    "trigger": "guardrail",
    "root_cause": "guardrail",
    "forbidden": "guardrail",
    "remedy": "guardrail",
}
EMPTY: dict[Kind, dict[str, Any]] = {
    "skill": {"preconditions": [], "verification": []},
    "sticker": {},
    "guardrail": {"trigger": []},
}
"""By kind, what its content says if the options say nothing."""
DERIVED = {
    "students": "students were trained with it",
    "experiences": "experiences were merged with it or name it",
    "trajectories": "episodes had it in their first message; its text is cut out of them",
}
"""What a tombstone names, in words."""


@memory.command("add")
def add(
    kind: Annotated[Kind | None, typer.Argument(help="What to write; leave it out with --from.")] = None,
    file: Annotated[
        str, typer.Option("--from", metavar="FILE", help="JSON of one experience or a list of them; - is stdin.")
    ] = "",
    environment: Annotated[str, typer.Option(help="Where it applies.")] = "",
    family: Annotated[str, typer.Option(help="The task family that it is for.")] = "",
    goal: Annotated[str, typer.Option(help="The goal that it serves, with slots for what varies.")] = "",
    core: Annotated[str, typer.Option(help="What it comes to, in a sentence or two.")] = "",
    verbatim: Annotated[str, typer.Option(help="One exact detail, for search by words.")] = "",
    condition: Annotated[list[str] | None, typer.Option(help="Of a sticker; repeatable.")] = None,
    question: Annotated[str, typer.Option(help="Of a sticker.")] = "",
    precondition: Annotated[list[str] | None, typer.Option(help="Of a skill; repeatable.")] = None,
    step: Annotated[list[str] | None, typer.Option(help="Of a skill's procedure; repeatable.")] = None,
    verify: Annotated[list[str] | None, typer.Option(help="Of a skill; repeatable.")] = None,
    trigger: Annotated[list[str] | None, typer.Option(help="Of a guardrail: a line pattern; repeatable.")] = None,
    forbidden: Annotated[str, typer.Option(help="Of a guardrail: a pattern over actions.")] = "",
    cause: Annotated[str, typer.Option(help="Of a guardrail: why it goes wrong.")] = "",
    remedy: Annotated[str, typer.Option(help="Of a guardrail: what to do instead.")] = "",
    source: Annotated[
        list[str] | None, typer.Option(metavar="TRAJECTORY[:STEP,…]", help="Recorded steps it rests on; repeatable.")
    ] = None,
    reason: ReasonOption = "",
    name: WhoOption = "",
    tenant: TenantOption = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write an experience by hand; it begins on trial and is trusted as its writer is."""
    content = {
        "conditions": condition,
        "question": question,
        "preconditions": precondition,
        "procedure": step,
        "verification": verify,
        "trigger": trigger,
        "root_cause": cause,
        "forbidden": forbidden,
        "remedy": remedy,
    }
    said = {"environment": environment, "family": family, "goal": goal, "core": core, "verbatim": verbatim}
    data = _from_options(kind, {**said, **content}) if not file else _json(file)
    if file and (kind or any([*said.values(), *content.values()])):
        raise ConfigError("--from brings everything; leave the kind and the other fields out")
    with memory_of(config, overrides, tenant) as workspace:
        from tutelage.memory.by_hand import written

        mine = {"sources": _sources(workspace, source)} if source else {}
        entries = [{**entry, **mine} if isinstance(entry, dict) else entry for entry in _listed(data)]
        made = [written(entry, who(name), tenant=workspace.memory.tenant, reason=reason) for entry in entries]
        for item in made:
            _check_place(workspace, item)
        kept = workspace.memory.add_many(made)
    _report(kept, as_json)


@memory.command("edit")
def edit(
    id: IdArgument,
    patch: Annotated[
        str, typer.Option(metavar="JSON|FILE|-", help="JSON merge patch over the fields that `add --from` takes.")
    ] = "",
    goal: Annotated[str | None, typer.Option(help="The new goal.")] = None,
    core: Annotated[str | None, typer.Option(help="The new core.")] = None,
    verbatim: Annotated[str | None, typer.Option(help="The new exact detail.")] = None,
    family: Annotated[str | None, typer.Option(help="The task family that it is really for.")] = None,
    reason: ReasonOption = "",
    name: WhoOption = "",
    tenant: TenantOption = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Change what an experience says; the version before stays in its history."""
    fields = {"goal": goal, "core": core, "verbatim": verbatim, "family": family}
    data = _json(patch) if patch else {}
    if isinstance(data, dict):
        data = {**data, **{field: value for field, value in fields.items() if value is not None}}
    if not data:
        raise ConfigError('nothing to change; give e.g. --goal TEXT or --patch \'{"content": {"question": "…"}}\'')
    with memory_of(config, overrides, tenant) as workspace:
        from tutelage.memory import by_hand

        kept = by_hand.edit(workspace.memory, id, data, who(name), reason)
    _report([kept], as_json)


@memory.command("approve")
def approve(
    ids: IdsArgument,
    reason: ReasonOption = "",
    on_trial: Annotated[bool, typer.Option("--on-trial", help="Make it a candidate, to be measured first.")] = False,
    name: WhoOption = "",
    tenant: TenantOption = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take experiences into use on your word, out of quarantine too."""
    status = Status.CANDIDATE if on_trial else Status.ACTIVE
    change = Change(by=f"review:{who(name)}", reason=reason or "approved")
    _each(ids, lambda here, id: here.memory.move(id, status, change), config, overrides, tenant, as_json)


@memory.command("retire")
def retire(
    ids: IdsArgument,
    reason: ReasonOption = "",
    name: WhoOption = "",
    tenant: TenantOption = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take experiences out of use; they stay in the record."""
    change = Change(by=f"review:{who(name)}", reason=reason or "retired by hand")
    _each(ids, lambda here, id: here.memory.move(id, Status.RETIRED, change), config, overrides, tenant, as_json)


@memory.command("restore")
def restore(
    ids: IdsArgument,
    reason: ReasonOption = "",
    name: WhoOption = "",
    tenant: TenantOption = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Bring back what was retired or absorbed, to where it stood before; on trial if it says something else now."""
    from tutelage.memory import by_hand

    me = who(name)
    _each(ids, lambda here, id: by_hand.restore(here.memory, id, me, reason), config, overrides, tenant, as_json)


@memory.command("undo")
def undo(
    ids: IdsArgument,
    name: WhoOption = "",
    tenant: TenantOption = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take back the newest change that was not taken back yet, as one more version; again goes further back."""
    me = who(name)
    _each(ids, lambda here, id: here.memory.undo(id, by=f"hand:{me}"), config, overrides, tenant, as_json)


@memory.command("forget")
def forget(
    id: IdArgument,
    reason: ReasonOption = "",
    yes: YesOption = False,
    name: WhoOption = "",
    tenant: TenantOption = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Erase an experience for good, and say what was made from it; a tombstone stays."""
    with memory_of(config, overrides, tenant) as workspace:
        item = workspace.memory.get(id)
        if not yes:
            tell(f"{item.kind} {item.id} v{item.version}: {workspace.memory.render(item)}", file=sys.stderr)
            typer.confirm("erase all its versions? This cannot be undone", abort=True, err=True)
        stone = workspace.memory.forget(id, reason=reason or "asked to", by=f"hand:{who(name)}")
    _tell_forgotten(stone, as_json)


def _tell_forgotten(stone: "Tombstone", as_json: bool) -> None:
    if as_json:
        emit_json({"id": stone.id, "reason": stone.reason, "by": stone.by, "derived": stone.derived})
        return
    print(f"{stone.kind} {stone.id} is forgotten; nothing in this workspace says any more what it said")
    for what, ids in stone.derived.items():
        if ids:
            print(f"{len(ids)} {DERIVED.get(what, what)}: {', '.join(ids)}")
    if stone.derived.get("students"):
        print("students trained with it keep what they learned: roll back, or train anew without it")
    print("out of reach: backups, exports, weights, cassettes, and what was sent to a provider")


# -- inside -------------------------------------------------------------------------------------


def _each(
    ids: Sequence[str],
    act: "Callable[[Workspace, str], Experience]",
    config: Path | None,
    overrides: list[str] | None,
    tenant: str | None,
    as_json: bool,
) -> None:
    """Do it to all of them or, if one cannot be, to none."""
    with memory_of(config, overrides, tenant) as workspace, workspace.record.transaction():
        for id in ids:
            workspace.memory.get(id)
        kept = [act(workspace, id) for id in ids]
    _report(kept, as_json)


def _report(kept: Sequence[Experience], as_json: bool) -> None:
    if as_json:
        emit_json([item.model_dump(mode="json") for item in kept])
        return
    for item in kept:
        tell(f"{item.kind} {item.id} v{item.version} ({item.status}): {item.change.by}: {item.change.reason}")


def _from_options(kind: Kind | None, said: dict[str, Any]) -> dict[str, Any]:
    if kind is None:
        raise ConfigError("say what to add: sticker, skill or guardrail, or --from FILE")
    content: dict[str, Any] = {"kind": kind, **EMPTY[kind]}
    for name, whose in FIELDS.items():
        value = said.pop(name)
        if value and whose != kind:
            raise ConfigError(f"{name.replace('_', ' ')} belongs to a {whose}, not to a {kind}")
        if value:
            content[name] = value
    missing = [f"--{name}" for name in ("environment", "family", "goal") if not said[name]]
    if missing:
        raise ConfigError(f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing")
    return {**said, "content": content}


def _json(text: str) -> Any:
    """JSON given as it stands, in a file, or on stdin (``-``). Raises ConfigError if it is none."""
    place = "stdin" if text == "-" else text
    try:
        if text.lstrip().startswith(("{", "[")):
            place = "the JSON given"
        else:
            text = sys.stdin.read() if text == "-" else Path(text).read_text(encoding="utf-8")
        return json.loads(text)
    except OSError as error:
        raise ConfigError(f"cannot read {place}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{place} is not JSON: {error}") from error


def _listed(data: Any) -> list[Any]:
    return data if isinstance(data, list) else [data]


def _sources(workspace: "Workspace", given: Sequence[str]) -> list[dict[str, Any]]:
    """Trajectories of the record with the steps named. Raises RecordError if there is no such trajectory or step."""
    sources = []
    for entry in given:
        id, _, numbers = entry.partition(":")
        trajectory = workspace.record.trajectory(id)
        try:
            steps = [int(number) for number in numbers.split(",")] if numbers else []
        except ValueError as error:
            raise ConfigError(f"{entry!r} is not of the form TRAJECTORY:STEP,STEP") from error
        if trajectory.tenant != workspace.memory.tenant:
            raise RecordError(f"{workspace.record.name} has no trajectory {id!r}")
        if any(step not in range(len(trajectory.steps)) for step in steps):
            raise RecordError(f"{id} has {len(trajectory.steps)} steps, numbered from 0")
        sources.append({"trajectory": id, "task": trajectory.task.id, "steps": steps})
    return sources


def _check_place(workspace: "Workspace", item: Experience) -> None:
    """What is for a place that does not exist would never be shown, and nobody would notice."""
    parts = {part.name: part.environment for part in workspace.suite.parts}
    if item.environment not in parts:
        raise ConfigError(f"this workspace has no environment {item.environment!r}; it has {', '.join(parts)}")
    if item.family not in (*parts[item.environment].families(), DESIGNED):
        known = f"`tutelage env show {item.environment}` lists those it has"
        raise ConfigError(f"{item.environment} has no task family {item.family!r}; {known}")
