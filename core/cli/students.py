"""Commands about student versions: which there are, what they are, and which one is in use."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from tutelage.cli.app import ConfigOption, JsonOption, SetOption, app, emit_json, emit_rows, opened
from tutelage.cli.legible import tell
from tutelage.cli.memory import WhoOption, YesOption, who
from tutelage.types import Split

if TYPE_CHECKING:
    from tutelage.measures import Student
    from tutelage.version_compare import Paired, Versions
    from tutelage.workspace import Workspace

students = typer.Typer(
    help="Student versions: list, show, compare, promote, roll back, delete, export, verify.", no_args_is_help=True
)
app.add_typer(students, name="students")

NAME_HELP = "Label (student@3), number, id, or the beginning of its digest."
NameArgument = Annotated[str, typer.Argument(metavar="STUDENT", help=NAME_HELP)]


@students.command("list")
def list_students(config: ConfigOption = None, overrides: SetOption = None, as_json: JsonOption = False) -> None:
    """All student versions with their lineage, deleted ones too; the promoted one is marked."""
    from tutelage.versions import missing

    with opened(config, overrides) as workspace:
        promoted = workspace.record.promoted()
        rows: list[dict[str, Any]] = [
            {
                "student": item.label,
                "promoted": "yes" if promoted is not None and promoted.id == item.id else "",
                "trajectories trained on": len(item.trajectories),
                "content": item.content if as_json else item.content[:12],
                "note": missing(workspace, item),
                **item.model_dump(mode="json"),
            }
            for item in workspace.record.students()
        ]
    columns = ("student", "promoted", "stage", "cycle", "parent", "trajectories trained on", "content", "note", "id")
    emit_rows(rows, columns, as_json=as_json, empty="no students")


@students.command("show")
def show(
    student: NameArgument, config: ConfigOption = None, overrides: SetOption = None, as_json: JsonOption = False
) -> None:
    """One student: its line, what it was made from, what was measured of it, and what needs it."""
    from tutelage import lineage, versions

    with opened(config, overrides, remember=False) as workspace:
        record, item = workspace.record, versions.find(workspace.record, student)
        stone = versions.deletion(record, item)
        found: dict[str, Any] = {
            "student": item.label,
            "content": item.content,
            "deleted": stone and stone.model_dump(mode="json"),
            "bytes": versions.size(versions.place(workspace, item)),
            "line": [one.label for one in lineage.line(record, item)],
            "children": [one.label for one in lineage.children(record, item)],
            "needed": [] if stone else versions.references(workspace, item),
            "evaluations": [
                doc.model_dump(mode="json", exclude={"trajectories"}) for doc in lineage.evaluations(record, item)
            ],
            "gates": [doc.model_dump(mode="json") for doc in lineage.gates(record, item)],
            "promotions": [{**one, "created": one["created"].isoformat()} for one in lineage.promotions(record, item)],
            **item.model_dump(mode="json"),
        }
        if as_json:
            emit_json(found)
        else:
            _print_student(workspace, item, found)


def _print_student(workspace: "Workspace", item: "Student", found: dict[str, Any]) -> None:
    from tutelage.lineage import evaluations
    from tutelage.results import interval, percent

    promoted = workspace.record.promoted()
    state = "promoted" if promoted is not None and promoted.id == item.id else "not promoted"
    if found["deleted"]:
        stone = found["deleted"]
        state = f"deleted by {stone['by']} on {stone['created'][:10]}: {stone['reason']}"
    tell(f"{item.label}  {item.id}  {state}")
    tell(
        f"line: {' → '.join(found['line'])}"
        + (f"; trained from it: {', '.join(found['children'])}" if found["children"] else "")
    )
    tell(f"weights: {item.weights}, {found['bytes']:,} bytes, sha256:{item.content or 'not noted'}")
    made = [f"{item.stage} in cycle {item.cycle}", f"{item.created:%Y-%m-%d %H:%M} UTC"]
    made += [f"seed {item.seed}"] if item.seed is not None else []
    made += [f"Tutelage {item.version} {item.commit}".rstrip()] if item.version else []
    tell(f"made by: {', '.join(made)}")
    tell(f"from: {len(item.trajectories)} trajectories, {len(item.experiences)} experiences")
    for what, digest in (("base weights", item.base_content), ("data", item.data), ("configuration", item.config)):
        if digest:
            tell(f"{what}: sha256:{digest}")
    for name, value in {**item.trained_as, **item.settings}.items():
        tell(f"  {name} = {value}")
    for doc in evaluations(workspace.record, item):
        memory = "on" if doc.memory else "off"
        tell(
            f"cycle {doc.cycle}, {doc.split}, memory {memory}: {percent(doc.rate)} ({interval(doc.rate)}, "
            f"{doc.rate.episodes} episodes)"
        )
    for decision in found["gates"]:
        tell(f"cycle {decision['cycle']}: {decision['reason']}")
    for one in found["promotions"]:
        tell(f"in use from {one['created'][:16]}: {one['reason']}")
    for why in found["needed"]:
        tell(f"needed: {why}")


@students.command("compare")
def compare(
    old: NameArgument,
    new: NameArgument,
    play: Annotated[
        int, typer.Option("--play", metavar="N", min=0, help="First have both play N held-out tasks per family.")
    ] = 0,
    split: Annotated[Split, typer.Option(help="Of the tasks to play.")] = Split.VALIDATION,
    config: ConfigOption = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """How the second differs from the first: paired success on held-out tasks, settings, data."""
    from tutelage import version_compare, versions
    from tutelage.errors import ConfigError
    from tutelage.progress import reporting

    if split is Split.TRAIN:
        raise ConfigError("students are compared on tasks that nothing was trained on: --split validation or test")
    with opened(config, overrides, remember=False) as workspace:
        pair = [versions.find(workspace.record, name) for name in (old, new)]
        if play:
            with reporting() as report:
                version_compare.play(workspace, pair, split, play, report)
        found = version_compare.compare(workspace, *pair)
    if as_json:
        emit_json(found.model_dump(mode="json"))
    else:
        _print_comparison(found)


def _print_comparison(found: "Versions") -> None:
    from tutelage.version_compare import FEW

    print(f"{found.new} against {found.old}" + (": the same weights" if found.same_weights else ""))
    for pair in found.paired:
        print(_paired_line(found, pair))
    if not any(pair.comparison.pairs >= FEW for pair in found.paired):
        print(f"fewer than {FEW} tasks were played by both; --play N has both play N per family")
    for what, shared in (("trajectories", found.trajectories), ("experiences", found.experiences)):
        only = f"{shared.only_old} only of {found.old}, {shared.only_new} only of {found.new}"
        print(f"{what}: {shared.both} of both, {only}")
    for name, (before, after) in found.settings.items():
        print(f"{name}: {before} → {after}")


def _paired_line(found: "Versions", pair: "Paired") -> str:
    from tutelage.results import percent, points

    done = pair.comparison
    return (
        f"{pair.split}, memory {'on' if pair.memory else 'off'}: {percent(pair.old.rate)} → {percent(pair.new.rate)}, "
        f"gain in points {points(done)} over {done.pairs} pairs; only {found.new} solved {done.won}, only {found.old} "
        f"{done.lost} (p = {done.p_value:.3f})"
    )


@students.command("promote")
def promote(
    student: NameArgument,
    reason: Annotated[str, typer.Option(help="Why; kept in the history.")],
    config: ConfigOption = None,
    overrides: SetOption = None,
) -> None:
    """Promote a student that passed the gate of its cycle; anything else is refused."""
    from tutelage.gate import promote_by_hand
    from tutelage.versions import find

    with opened(config, overrides) as workspace:
        print(promote_by_hand(workspace, find(workspace.record, student, alone=True).id, reason))


@students.command("rollback")
def rollback(config: ConfigOption = None, overrides: SetOption = None) -> None:
    """Go back to the student that was in use before the present one (or to the base student)."""
    from tutelage.gate import rollback

    with opened(config, overrides) as workspace:
        print(rollback(workspace))


@students.command("delete")
def delete(
    student: NameArgument,
    reason: Annotated[str, typer.Option("--reason", "-m", help="Why; kept in the record.")] = "not needed any more",
    yes: YesOption = False,
    name: WhoOption = "",
    config: ConfigOption = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove a student's weights for good, unless something needs them; what it did and its rates stay."""
    from tutelage import versions

    with opened(config, overrides, remember=False) as workspace:
        item = versions.find(workspace.record, student, alone=True)
        if not yes:
            taken = versions.size(versions.place(workspace, item))
            print(f"{item.label}  {item.weights}, {taken:,} bytes", file=sys.stderr)
            typer.confirm("delete its weights? This cannot be undone", abort=True, err=True)
        stone = versions.delete(workspace, item, reason=reason, by=f"hand:{who(name)}")
    if as_json:
        emit_json(stone.model_dump(mode="json"))
    else:
        print(f"{item.label} is deleted, which freed {stone.bytes:,} bytes; it stays in the record")


@students.command("export")
def export(
    student: NameArgument,
    out: Annotated[Path, typer.Argument(help="New folder to write.")],
    format: Annotated[
        Literal["merged", "adapter"],
        typer.Option(help="All weights, or what differs from the base weights as a PEFT adapter."),
    ] = "merged",
    config: ConfigOption = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a student as a folder that transformers or PEFT loads, with a model card."""
    from tutelage.training.exporting import export
    from tutelage.versions import find

    with opened(config, overrides, remember=False) as workspace:
        done = export(workspace, find(workspace.record, student), out, format)
    if as_json:
        emit_json({**vars(done), "folder": str(done.folder)})
        return
    print(f"{done.student} is in {done.folder}; README.md says what it is")
    if done.format == "adapter":
        print(f"rank {done.rank}; largest difference of a logit from {done.student}'s: {done.error:.1e}")


@students.command("verify")
def verify(
    names: Annotated[list[str] | None, typer.Argument(metavar="STUDENT...", help=f"{NAME_HELP} Default: all.")] = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read all files of students and compare them with what was noted when they were made; exit code 1 if any differs
    or is missing."""
    from tutelage import versions

    with opened(config, overrides, remember=False) as workspace:
        record = workspace.record
        wanted = [versions.find(record, name) for name in names] if names else record.students()
        found = [versions.verify(workspace, item) for item in wanted]
    rows = [item.model_dump(mode="json") for item in found]
    emit_rows(rows, ("student", "state", "detail"), as_json=as_json, empty="no students")
    if any(item.state in ("changed", "missing") for item in found):
        raise typer.Exit(1)
