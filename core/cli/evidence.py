"""The `memory` commands about what memory is worth: measure, absorption."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from tutelage.cli.app import ConfigOption, JsonOption, SetOption, emit_json, emit_rows, opened
from tutelage.cli.memory import memory
from tutelage.experience import Experience, Status

if TYPE_CHECKING:
    from tutelage.measures import Effect, FamilyHoldings, Measurement, Move, Rate


@memory.command("measure")
def measure(
    pairs: Annotated[
        int | None, typer.Option(min=0, help="Pairs of episodes over task families; default: evidence.pairs.")
    ] = None,
    item_pairs: Annotated[
        int | None, typer.Option(min=0, help="Further pairs for single experiences; default: evidence.item_pairs.")
    ] = None,
    last: Annotated[bool, typer.Option("--last", help="Play nothing; print the newest measurement.")] = False,
    config: ConfigOption = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure what memory does to the promoted student's success, and activate, retire or absorb by it.

    Families of which all is decided for this student are not measured again. Interrupted? Run it again.
    """
    from tutelage.errors import RecordError
    from tutelage.evidence import measure_by_hand, measurements
    from tutelage.progress import reporting

    with opened(config, overrides, remember=False) as workspace:
        if last:
            done = [item for item in measurements(workspace) if item.finished]
            if not done:
                raise RecordError("nothing has been measured yet; `tutelage memory measure` does it")
            found = done[-1]
        else:
            with reporting() as report:
                found = measure_by_hand(workspace, report, pairs=pairs, item_pairs=item_pairs)
        student = workspace.record.student(found.student).label
        texts = {item.id: workspace.memory.render(item) for item in workspace.memory.experiences()}
    if as_json:
        emit_json({**found.model_dump(mode="json"), "student": student})
        return
    _print_measurement(found, student, texts)


@memory.command("absorption")
def absorption(config: ConfigOption = None, overrides: SetOption = None, as_json: JsonOption = False) -> None:
    """What of the used memory the student's weights hold, the prompt tokens that saves, and what came back."""
    from tutelage.absorption import harmful, restorations
    from tutelage.evidence import measurements
    from tutelage.holdings import holdings
    from tutelage.pairing import episodes_shown

    with opened(config, overrides, remember=False) as workspace:
        done = [item for item in measurements(workspace) if item.finished]
        found = holdings(workspace, [item for each in done[-1:] for item in episodes_shown(workspace, each)])
        students = {student.id: student.label for student in workspace.record.students()}
        held = [
            {**_listed(item), "by": students.get(item.absorbed_by, item.absorbed_by)}
            for item in workspace.memory.experiences(statuses=[Status.ABSORBED])
        ]
        harms = [_listed(item) for item in harmful(workspace.memory.experiences(statuses=[Status.RETIRED]))]
        restored = restorations(workspace.record)
    if as_json:
        moves = [move.model_dump(mode="json") for move in restored]
        emit_json({"holdings": found.model_dump(mode="json"), "absorbed": held, "harmful": harms, "restored": moves})
        return
    columns = ("family", "used", "held", "tokens per episode", "now", "episodes")
    emit_rows([_holding(*row) for row in found.families.items()], columns, as_json=False, empty="memory was never used")
    print(
        f"\n{found.student} holds {found.held} of {found.used} stickers and skills that were used, "
        f"{found.held_shown} of the {found.shown} times that they were shown"
    )
    counted = f"tokens of {found.tokenizer}" if found.tokenizer else "tokens, estimated from characters"
    print(f"saved so far: {found.tokens_saved} {counted} in {found.episodes} episodes with memory on")
    for row in held:
        print(f"  absorbed by {row['by']}: {row['kind']} {row['id']} of {row['family']}: {row['reason']}")
    for row in harms:
        print(f"  retired: {row['kind']} {row['id']} of {row['family']}: {row['reason']}")
    for move in restored:
        print(f"  restored as {move.after}: {move.kind} {move.experience} of {move.family}: {move.reason}")


def _listed(item: Experience) -> dict[str, str]:
    family = f"{item.environment}/{item.family}"
    return {"id": item.id, "kind": item.kind, "family": family, "reason": item.change.reason}


def _holding(family: str, found: "FamilyHoldings") -> dict[str, Any]:
    measured = found.episodes > 0
    return {
        "family": family,
        "used": found.used,
        "held": found.held,
        "tokens per episode": f"{found.tokens_all:.0f}" if measured else "–",
        "now": f"{found.tokens_now:.0f}" if measured else "–",
        "episodes": found.episodes,
    }


def _print_measurement(found: "Measurement", student: str, texts: dict[str, str]) -> None:
    print(f"{found.name}: {student}, {found.pairs} pairs, {found.item_pairs} more for single experiences\n")
    whole = [item for item in found.effects if not item.experience]
    single = [item for item in found.effects if item.experience]
    columns = ("family", "pairs", "without", "with", "difference", "says", "left out")
    emit_rows([_row(item) for item in whole], columns, as_json=False, empty="there is nothing to measure here")
    if single:
        print()
        rows = [
            {**_row(item), "shown": "alone" if item.alone else "with others", "id": item.experience} for item in single
        ]
        for row in rows:
            row["text"] = texts.get(row["id"], "")
        columns_of_one = ("id", "shown", "pairs", "without", "with", "difference", "says", "text")
        emit_rows(rows, columns_of_one, as_json=False, empty="")
    print()
    for move in found.moves:
        print(move_line(move))
    print(f"{len(found.moves)} moved; {found.unmeasured} stickers and skills in use are unmeasured")


def move_line(move: "Move") -> str:
    return f"{move.kind} {move.experience} of {move.family}: {move.before} → {move.after}: {move.reason}"


def _row(found: "Effect") -> dict[str, Any]:
    difference = found.difference
    left = [(found.seen, "seen in training"), (difference.broken, "broken")]
    return {
        "family": found.family,
        "pairs": difference.pairs,
        "without": _rate(found.without),
        "with": _rate(found.with_memory),
        "difference": f"{100 * difference.gain:+.0f} ({100 * difference.low:+.0f} to {100 * difference.high:+.0f})",
        "says": found.finding.value,
        "left out": ", ".join(f"{count} {why}" for count, why in left if count),
    }


def _rate(found: "Rate") -> str:
    return f"{found.successes} ({100 * found.low:.0f}–{100 * found.high:.0f} %)"
