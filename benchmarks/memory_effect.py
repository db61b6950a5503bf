"""Whether memory in the prompt helps: base and promoted student, memory on against off, over shuffled seeds.

    python benchmarks/memory_effect.py WORKSPACE [--episodes 32] [--seeds 3]

Each seed has test-split tasks of its own in an order of its own; both arms of a student play the same tasks, and
the tasks of different seeds are different. Episodes are kept in the workspace's record, so that a run that was
stopped goes on; nothing learns from them.
"""

import argparse
import random
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tutelage.agents.seeds import stable_seed
from tutelage.evaluate import evaluate_arm, held_out_tasks, seen_pairs
from tutelage.measures import Comparison, Student
from tutelage.stats import compare
from tutelage.types import BROKEN, Policy, Split, Trajectory
from tutelage.workspace import Workspace, find_config


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--episodes", type=int, default=32, help="per arm and seed")
    parser.add_argument("--seeds", type=int, default=3)
    chosen = parser.parse_args()
    config = find_config(None, [f"workspace={chosen.workspace}"], existing=True)
    workspace = Workspace(config, remember=False)
    try:
        students = {student.id: student for student in (workspace.base_student(), workspace.current_student())}
        table = Table("student", "seed", "off", "on", "on - off", "interval", "won", "lost", "pairs")
        for student in students.values():
            _rows(table, workspace, student, chosen.seeds, chosen.episodes)
        Console(width=120).print(table)
    finally:
        workspace.close()


def _rows(table: Table, workspace: Workspace, student: Student, seeds: int, episodes: int) -> None:
    policy = workspace.student_policy(student)
    pooled: list[tuple[bool, bool]] = []
    for seed in range(seeds):
        off = _play(workspace, policy, student, seed, episodes, memory=False)
        on = _play(workspace, policy, student, seed, episodes, memory=True)
        pairs = [(off[task], on[task]) for task in off if task in on]
        pooled += pairs
        table.add_row(policy.label, str(seed), *_cells(pairs, workspace.config.evaluate.confidence))
    table.add_row(policy.label, "all", *_cells(pooled, workspace.config.evaluate.confidence), style="bold")


def _play(
    workspace: Workspace, policy: Policy, student: Student, seed: int, episodes: int, *, memory: bool
) -> dict[str, bool]:
    """Success by task, of sound episodes that did not occur in training."""
    tasks = held_out_tasks(workspace.suite, Split.TEST, episodes, stable_seed("memory effect", seed))
    random.Random(seed).shuffle(tasks)
    arm = evaluate_arm(
        workspace.record,
        tasks,
        policy,
        workspace.suite.make_for_evaluation,
        act=workspace.config.act,
        memory=workspace.memory if memory else None,
        seed=seed,
        key_prefix=f"0/effect/{student.id}/{seed}/{'on' if memory else 'off'}",
        cycle=0,
        student_label=student.label,
        split=Split.TEST,
        seen=seen_pairs(workspace.record),
        progress=lambda what, done, count: print(f"\r{what} {done}/{count}", end="", flush=True),
    )
    print()
    found: list[Trajectory] = [workspace.record.trajectory(item) for item in arm.trajectories]
    return {item.task.id: item.success for item in found if item.ending not in BROKEN}


def _cells(pairs: list[tuple[bool, bool]], confidence: float) -> list[str]:
    off, on = ([pair[place] for pair in pairs] for place in (0, 1))
    found: Comparison = compare(off, on, confidence=confidence)
    return [
        f"{100 * sum(off) / max(len(off), 1):.0f} %",
        f"{100 * sum(on) / max(len(on), 1):.0f} %",
        f"{100 * found.gain:+.0f}",
        f"[{100 * found.low:+.0f}, {100 * found.high:+.0f}]",
        str(found.won),
        str(found.lost),
        str(found.pairs),
    ]


if __name__ == "__main__":
    main()
