"""What helps: base → SFT → {SFT longer, GRPO, SDPO, GRPO+SDPO} at equal training time, on held-out tasks.

    python benchmarks/learning/run.py benchmarks/learning/short.toml [--seeds N] [--out FOLDER] [--check]

A plan says what is compared (`plan.py`): `toy.toml` takes minutes and only shows that everything runs, `short.toml`
20 minutes per world and seed on two idle cores, `full.toml` a night. A run that was stopped goes on when the command is
given again. FOLDER has `results.json`, `table.txt` (which is also printed), `plots.html`, and the workspaces; to go on
elsewhere after whole seeds, `results.json` is enough. `--check` only reads the plan and lists its tasks.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import psutil
import torch
from cells import BASE, SFT, Cell, held_out
from cells import run as run_seed
from figures import tables, verdicts
from page import page
from plan import Plan, read
from rich.console import Console

from tutelage.errors import ConfigError, TutelageError
from tutelage.progress import reporting

HERE = Path(__file__).resolve().parent
WIDTH = 190

Results = dict[str, Any]
"""The plan (and the order of its arms), facts of each run that added to it, and the cells; JSON."""


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan", type=Path)
    parser.add_argument("--seeds", type=int, help="instead of the plan's")
    parser.add_argument("--out", type=Path, help="default: learning-PLAN")
    parser.add_argument("--check", action="store_true", help="train nothing")
    chosen = parser.parse_args(arguments)
    try:
        plan = read(chosen.plan)
        if chosen.seeds is not None:
            plan = Plan.model_validate(plan.model_dump() | {"seeds": chosen.seeds})
        if chosen.check:
            listed(plan)
        else:
            out = chosen.out or Path(f"learning-{chosen.plan.stem}")
            command = f"python benchmarks/learning/run.py {chosen.plan} --seeds {plan.seeds}"
            print(compared(plan, out, command), end="")
    except TutelageError as error:
        raise SystemExit(f"error: {error}") from error


def compared(plan: Plan, out: Path, command: str) -> str:
    """Run every seed of every world that `out` has no results of, writing what there is after each student; the text
    of the tables.

    Raises:
        ConfigError: `out` is of another plan.
    """
    results = before(plan, out)
    cells: list[Cell] = results["cells"]
    students = Counter((cell["world"], cell["seed"]) for cell in cells)
    pairs = [(name, seed) for seed in range(plan.seeds) for name in plan.worlds]  # cut short: some of every world
    left = [pair for pair in pairs if students[pair] < len((BASE, SFT, *plan.arms))]
    about = facts(command)
    if left and about not in results["runs"]:
        results["runs"].append(about)
    written(plan, out, results)
    with reporting() as report:
        for name, seed in left:
            others = [cell for cell in cells if (cell["world"], cell["seed"]) != (name, seed)]
            for found in run_seed(plan, name, seed, out / "workspaces", report):
                results["cells"] = cells = others + found
                written(plan, out, results)
    return (out / "table.txt").read_text()


def before(plan: Plan, out: Path) -> Results:
    """What earlier runs wrote, on this machine or another: `results.json` is enough to go on after a whole seed."""
    kept = {"plan": plan.model_dump(mode="json", exclude={"seeds"}), "order": list(plan.arms)}
    file = out / "results.json"
    if not file.exists():
        return {**kept, "runs": [], "cells": []}
    results: Results = json.loads(file.read_text())
    if differing := list(differences({key: results.get(key) for key in kept}, kept)):
        which = ", ".join(differing[:3]) + (", …" if len(differing) > 3 else "")
        raise ConfigError(f"{out} is of another plan ({which}); choose another --out, or remove it")
    return results


def differences(old: Any, new: Any, name: str = "") -> Iterator[str]:
    """Where two plans differ, as dotted names."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in old | new:
            yield from differences(old.get(key), new.get(key), f"{name}.{key}" if name else key)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for place, pair in enumerate(zip(old, new, strict=True)):
            yield from differences(*pair, f"{name}.{place}")
    elif old != new:
        yield name


def written(plan: Plan, out: Path, results: Results) -> None:
    """Write results, table and plots."""
    arms, cells = list(plan.arms), results["cells"]
    console = Console(width=WIDTH, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    for about in results["runs"]:
        console.print("; ".join(f"{name}: {value}" for name, value in about.items()), highlight=False)
    seeds = len({cell["seed"] for cell in cells})
    console.print(
        f"{plan.seconds:.0f} s of training per arm after SFT; seeds: {seeds}. Steps, seconds and tokens are means "
        f"over seeds. {plan.confidence:.0%} intervals: in brackets over held-out tasks, in columns of their own over "
        "seeds.",
        highlight=False,
    )
    for table in tables(cells, arms, plan.control, plan.confidence):
        console.print(table)
    for line in verdicts(cells, arms, plan.control, plan.confidence):
        console.print(line, highlight=False)
    console.file.close()
    text = console.export_text()
    replaced(out / "results.json", json.dumps(results))
    replaced(out / "table.txt", text)
    replaced(out / "plots.html", page(cells, arms, plan.confidence, text))


def facts(command: str) -> dict[str, str]:
    """When, what and where."""

    def git(*words: str) -> str:
        found = subprocess.run(["git", "-C", HERE, *words], capture_output=True, text=True)
        return found.stdout.strip()

    names = [line.partition(":")[2].strip() for line in _cpuinfo() if line.startswith("model name")]
    changed = " with changes" if git("status", "--porcelain", "--untracked-files=no") else ""
    return {
        "date": date.today().isoformat(),
        "commit": (git("rev-parse", "--short", "HEAD") or "unknown") + changed,
        "command": command,
        "machine": f"{names[0] if names else platform.machine()}, {len(os.sched_getaffinity(0))} cores, "
        f"{psutil.virtual_memory().total / 2**30:.0f} GiB, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
    }


def _cpuinfo() -> list[str]:
    file = Path("/proc/cpuinfo")
    return file.read_text().splitlines() if file.is_file() else []


def replaced(file: Path, text: str) -> None:
    """The file has the new text or still the old one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    made = file.with_suffix(".new")
    made.write_text(text)
    made.replace(file)


def listed(plan: Plan) -> None:
    """What would be done; every task is one that its environment has."""
    for name, world in plan.worlds.items():
        sets = held_out(plan, world, 0)
        print(f"{name}: trained on {', '.join(world.suite.families)}")
        print(f"{name}: unseen {', '.join(world.suite_unseen.families) or 'none'}")
        print(f"{name}: held-out tasks per student and seed: {', '.join(f'{len(t)} of {w}' for w, t in sets.items())}")
    runs = len(plan.worlds) * plan.seeds
    print(
        f"{runs} x ({plan.sft.steps} SFT steps, then {len(plan.arms)} arms of {plan.seconds:.0f} s), {plan.seeds} seeds"
    )
    print(f"training time of the arms in all: {runs * len(plan.arms) * plan.seconds / 3600:.1f} h")


if __name__ == "__main__":
    main()
