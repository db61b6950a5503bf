"""How often the probe alarm would tell of students that were measured: of those that lost much, and of the others.

    python benchmarks/learning/probes.py benchmarks/results/learning-*.json [--tasks 16]

A probe of N tasks is taken to be N of the held-out tasks that a student of the plan was measured on, before the arm
(`SFT`) and after it, drawn without replacement: all draws are counted, none simulated. The alarm's threshold is the
stages' default. Arms of fine-tuning alone are left out, as they have no probe. Held-out tasks stand for a probe's,
which are of the same families.
"""

import argparse
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from math import comb
from pathlib import Path
from statistics import fmean

from cells import SEEN, SFT, Cell
from rich.console import Console
from rich.table import Table

from tutelage.stage_config import AlarmsConfig

MUCH = 0.15
"""Share of the tasks; a student that lost more is one the alarm is meant for."""


def alarm_rate(lost: int, won: int, same: int, tasks: int, threshold: float) -> float:
    """Share of all draws of `tasks` among lost + won + same tasks in which the loss is more than `threshold`."""
    hits = sum(
        comb(lost, down) * comb(won, up) * comb(same, tasks - down - up)
        for down in range(min(lost, tasks) + 1)
        for up in range(min(won, tasks - down) + 1)
        if (down - up) / tasks > threshold
    )
    return hits / comb(lost + won + same, tasks)


def changes(cells: Sequence[Cell], acting: set[str]) -> Iterator[tuple[Cell, Counter[tuple[bool, bool]]]]:
    """Each student of an acting arm, and of how many held-out tasks it holds that (`SFT` solved them, it does)."""
    before = {(cell["world"], cell["seed"]): cell["outcomes"][SEEN] for cell in cells if cell["arm"] == SFT}
    for cell in cells:
        then = before.get((cell["world"], cell["seed"]), {})
        pairs = Counter((then[task], now) for task, now in cell["outcomes"][SEEN].items() if task in then)
        if cell["arm"] in acting and pairs:
            yield cell, pairs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, nargs="+", help="results.json of run.py")
    parser.add_argument("--tasks", type=int, default=AlarmsConfig().probe_tasks)
    args = parser.parse_args()
    threshold = AlarmsConfig().probe.threshold
    table = Table("results", "world", "seed", "student", "SFT", "now", "lost", "won", "of", "alarm")
    rates: dict[bool, list[float]] = {True: [], False: []}
    for file in args.results:
        results = json.loads(file.read_text())
        acting = {arm for arm, stages in results["plan"]["arms"].items() if any(s["type"] != "sft" for s in stages)}
        for cell, pairs in changes(results["cells"], acting):
            of, kept, lost, won = pairs.total(), pairs[True, True], pairs[True, False], pairs[False, True]
            if args.tasks > of:
                raise SystemExit(f"error: {file}: no {args.tasks} tasks to draw: a student was measured on {of}")
            told = alarm_rate(lost, won, of - lost - won, args.tasks, threshold)
            rates[(lost - won) / of > MUCH].append(told)
            what = (file.stem, cell["world"], str(cell["seed"]), cell["arm"])
            shares = (f"{(kept + lost) / of:.0%}", f"{(kept + won) / of:.0%}")
            table.add_row(*what, *shares, str(lost), str(won), str(of), f"{told:.1%}")
    console = Console(width=120)
    console.print(table)
    for much, name in ((True, "more"), (False, "less")):
        if found := rates[much]:
            spread = f"{min(found):.1%} to {max(found):.1%} of the draws, {fmean(found):.1%} on average"
            lost_what = f"{len(found)} students that lost {name} than {MUCH:.0%} of the tasks"
            console.print(f"{lost_what}: alarm in {spread} ({args.tasks} tasks)", highlight=False)


if __name__ == "__main__":
    main()
