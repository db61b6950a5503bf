"""Commands about what a workspace keeps: backup, restore, and what was forgotten of episodes and experiences."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from tutelage.cli.app import ConfigOption, JsonOption, SetOption, app, emit_json, emit_rows, load, opened
from tutelage.cli.memory import TenantOption, WhoOption, YesOption, memory, memory_of, who
from tutelage.cli.stores import trajectories


@app.command("backup")
def make_backup(
    file: Annotated[Path, typer.Argument(help="New file to write, e.g. monday.tar.gz.")],
    students: Annotated[bool, typer.Option("--students", help="With the weights of all students.")] = False,
    config: ConfigOption = None,
    overrides: SetOption = None,
) -> None:
    """Write the workspace to one file with digests; a run may go on meanwhile."""
    from tutelage.backup import backup

    manifest = backup(load(config, overrides, existing=True).workspace, file, students=students)
    print(f"{file}: {len(manifest.files)} files, {file.stat().st_size:,} bytes")
    if manifest.without:
        print(f"without the weights of {', '.join(manifest.without)}; --students takes them too")


@app.command("restore")
def restore_backup(
    file: Annotated[Path, typer.Argument(help="File written by `tutelage backup`.")],
    config: ConfigOption = None,
    overrides: SetOption = None,
) -> None:
    """Make a workspace from a backup; one that has something in it is never touched."""
    from tutelage.backup import restore

    folder = load(config, overrides).workspace
    manifest = restore(file, folder)
    print(f"{folder}: {len(manifest.files)} files as of {manifest.created:%Y-%m-%d %H:%M} UTC, all digests right")
    if manifest.without:
        print(f"the weights of {', '.join(manifest.without)} were not backed up")
    print("the memory index is built anew when it is next opened")


@trajectories.command("forget")
def forget_trajectory(
    id: Annotated[str, typer.Argument(help="Id of a trajectory.")],
    reason: Annotated[str, typer.Option("--reason", "-m", help="Why; kept in the tombstone.")] = "asked to",
    yes: YesOption = False,
    name: WhoOption = "",
    config: ConfigOption = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Erase what happened in an episode for good; its task, ending and reward stay, so that rates stay true."""
    with opened(config, overrides, remember=False) as workspace:
        item = workspace.record.trajectory(id)
        if not yes:
            print(
                f"{item.id}  {item.task.id}  by {item.policy}: {item.ending}, {len(item.steps)} steps", file=sys.stderr
            )
            typer.confirm("erase it? This cannot be undone", abort=True, err=True)
        stone = workspace.record.forget_trajectory(id, reason, f"hand:{who(name)}")
    if as_json:
        emit_json(vars(stone))
        return
    print(f"trajectory {stone.id} is forgotten")
    if drawn := stone.derived["experiences"]:
        print(f"experiences were drawn from it and may quote it: {', '.join(drawn)} (`tutelage memory forget`)")
    if trained := stone.derived["students"]:
        print(
            f"students were trained on it, or come from one that was: {', '.join(trained)}; they keep what they learned"
        )


@memory.command("forgotten")
def forgotten(
    tenant: TenantOption = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """What was forgotten, why and by whom, and how much was made from it (--json: its ids)."""
    with memory_of(config, overrides, tenant) as workspace:
        stones = workspace.record.tombstones(tenant=workspace.config.memory.tenant)
    rows = [
        vars(stone)
        if as_json
        else {
            **vars(stone),
            **{what: len(ids) for what, ids in stone.derived.items()},
            "created": f"{stone.created:%Y-%m-%d %H:%M}",
        }
        for stone in stones
    ]
    columns = ("id", "created", "by", "reason", "students", "experiences", "trajectories")
    emit_rows(rows, columns, as_json=as_json, empty="nothing was forgotten")
