"""`tutelage memory consolidate`."""

from typing import Annotated

import typer

from tutelage.cli.app import ConfigOption, JsonOption, SetOption, emit_json, emit_rows
from tutelage.cli.memory import TenantOption, memory, memory_of


@memory.command("consolidate")
def consolidate(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done; asks no model.")] = False,
    tenant: TenantOption = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Merge what says the same, surface contradictions, retire what the capacity has no room for."""
    from tutelage.consolidating import consolidate_memory, counts, rows

    with memory_of(config, overrides, tenant) as workspace:
        found = consolidate_memory(workspace, dry_run=dry_run)
        done = rows(found, workspace.memory)
    if as_json:
        emit_json({**counts(found), "dry run": dry_run, "kept apart": found.kept_apart, "done": done})
        return
    if done:
        emit_rows(done, ("what", "id", "with", "similarity", "why", "text"), as_json=False, empty="")
    figures = counts(found)
    print(f"{figures['in use']} experiences in use, {figures['near pairs']} near pairs compared")
    for reason, count in found.kept_apart.items():
        print(f"  {count} stay two: {reason}")
    verb = "would be " if dry_run else ""
    print(
        f"{figures['merged']} {verb}merged, {figures['contradictions']} contradictions "
        f"({figures['resolved']} {verb}resolved by evidence), {figures['retired']} {verb}retired for room; "
        f"{figures['left']} {'would stay' if dry_run else 'are'} in use"
    )
