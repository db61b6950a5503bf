"""Commands that read and keep the stores: trajectories and students."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from tutelage.cli.app import ConfigOption, JsonOption, SetOption, app, emit_json, emit_rows, opened
from tutelage.types import Split


class Format(StrEnum):
    """File formats of trajectories."""

    JSONL = "jsonl"
    ATIF = "atif"


trajectories = typer.Typer(help="Read, export and import trajectories.", no_args_is_help=True)
students = typer.Typer(help="List, promote and roll back student versions.", no_args_is_help=True)
app.add_typer(trajectories, name="trajectories")
app.add_typer(students, name="students")


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
    print(f"{item.id}  {item.task.id}  by {item.policy}, memory {'on' if item.memory else 'off'}: {item.ending}")
    print(f"goal: {item.goal}")
    for shown in item.shown:
        print(f"shown {shown.id} v{shown.version}: {shown.text}")
    for index, step in enumerate(item.steps):
        print(f"\n-- step {index}")
        for note in step.notes:
            print(f"note: {note}")
        print(step.observation)
        if step.thought:
            print(f"thought: {step.thought}")
        blocked = f" (blocked by {step.blocked_by})" if step.blocked_by else ""
        print(f"action: {step.action}{blocked}\n{step.diagnosis.cause}: {step.diagnosis.evidence}")
    if verdict is not None:
        print(f"\njudge {verdict.judge}: {'successful' if verdict.successful else 'not successful'}; {verdict.reason}")


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


@students.command("list")
def list_students(config: ConfigOption = None, overrides: SetOption = None, as_json: JsonOption = False) -> None:
    """All student versions with their lineage; the promoted one is marked."""
    with opened(config, overrides) as workspace:
        promoted = workspace.record.promoted()
        rows: list[dict[str, Any]] = [
            {
                "student": item.label,
                "promoted": "yes" if promoted is not None and promoted.id == item.id else "",
                "trajectories trained on": len(item.trajectories),
                **item.model_dump(mode="json"),
            }
            for item in workspace.record.students()
        ]
    columns = ("student", "promoted", "stage", "cycle", "parent", "trajectories trained on", "weights", "id")
    emit_rows(rows, columns, as_json=as_json, empty="no students")


@students.command("promote")
def promote(
    student: Annotated[str, typer.Argument(help="Id or label, e.g. student@3.")],
    reason: Annotated[str, typer.Option(help="Why; kept in the history.")],
    config: ConfigOption = None,
    overrides: SetOption = None,
) -> None:
    """Promote a student that passed the gate of its cycle; anything else is refused."""
    from tutelage.gate import promote_by_hand

    with opened(config, overrides) as workspace:
        print(promote_by_hand(workspace, student, reason))


@students.command("rollback")
def rollback(config: ConfigOption = None, overrides: SetOption = None) -> None:
    """Go back to the student that was promoted before the present one (or to the base student)."""
    from tutelage.gate import rollback

    with opened(config, overrides) as workspace:
        print(rollback(workspace))
