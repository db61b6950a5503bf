"""Commands that read and keep trajectories."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from tutelage.cli.app import ConfigOption, JsonOption, SetOption, app, emit_json, emit_rows, opened
from tutelage.cli.legible import tell
from tutelage.types import Split


class Format(StrEnum):
    """File formats of trajectories."""

    JSONL = "jsonl"
    ATIF = "atif"


trajectories = typer.Typer(help="Read, export and import trajectories.", no_args_is_help=True)
app.add_typer(trajectories, name="trajectories")


@trajectories.command("list")
def list_trajectories(
    arm: Annotated[str | None, typer.Option(help="Only this arm, e.g. demonstrations.")] = None,
    family: Annotated[str | None, typer.Option(help="Only this task family.")] = None,
    split: Annotated[Split | None, typer.Option(help="Only this split.")] = None,
    success: Annotated[bool | None, typer.Option(help="Only successes, or only the others.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at the most.")] = 50,
    config: ConfigOption = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Recorded episodes, oldest first."""
    with opened(config, overrides) as workspace:
        found = workspace.record.trajectories(arm=arm, family=family, split=split, success=success, limit=limit)
    rows = [
        {
            "id": item.id,
            "task": item.task.id,
            "policy": item.policy,
            "memory": item.memory,
            "ending": item.ending.value,
            "steps": len(item.steps),
            "goal": item.goal,
        }
        for item in found
    ]
    emit_rows(rows, ("id", "task", "policy", "ending", "steps", "goal"), as_json=as_json, empty="no trajectories")


@trajectories.command("show")
def show_trajectory(
    id: Annotated[str, typer.Argument(help="Id of a trajectory.")],
    config: ConfigOption = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """One episode, step by step."""
    with opened(config, overrides) as workspace:
        item = workspace.record.trajectory(id)
        verdict = workspace.record.verdict(id)
    if as_json:
        emit_json({**item.model_dump(mode="json"), "verdict": verdict and verdict.model_dump(mode="json")})
        return
    tell(f"{item.id}  {item.task.id}  by {item.policy}, memory {'on' if item.memory else 'off'}: {item.ending}")
    tell(f"goal: {item.goal}")
    for shown in item.shown:
        tell(f"shown {shown.id} v{shown.version}: {shown.text}")
    for index, step in enumerate(item.steps):
        tell(f"\n-- step {index}")
        for note in step.notes:
            tell(f"note: {note}")
        tell(step.observation)
        if step.thought:
            tell(f"thought: {step.thought}")
        blocked = f" (blocked by {step.blocked_by})" if step.blocked_by else ""
        tell(f"action: {step.action}{blocked}\n{step.diagnosis.cause}: {step.diagnosis.evidence}")
    if verdict is not None:
        tell(f"\njudge {verdict.judge}: {'successful' if verdict.successful else 'not successful'}; {verdict.reason}")


@trajectories.command("export")
def export(
    out: Annotated[Path, typer.Argument(help="File to write; for ATIF, a folder with one document per trajectory.")],
    format: Annotated[Format, typer.Option(help="jsonl is lossless.")] = Format.JSONL,
    config: ConfigOption = None,
    overrides: SetOption = None,
) -> None:
    """Write all trajectories to a file."""
    from tutelage import exchange

    with opened(config, overrides) as workspace:
        found = workspace.record.trajectories()
        if format is Format.ATIF:
            out.mkdir(parents=True, exist_ok=True)
            exchange.write_atif(found, out)
        else:
            exchange.write_jsonl(found, out)
    print(f"{len(found)} trajectories written to {out}")


@trajectories.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="JSONL file written by `trajectories export`.")],
    config: ConfigOption = None,
    overrides: SetOption = None,
) -> None:
    """Read trajectories from a file; those already there are left alone."""
    from tutelage import exchange

    with opened(config, overrides, existing=False) as workspace:
        added = exchange.import_jsonl(workspace.record, file)
    print(f"{added} trajectories added")
