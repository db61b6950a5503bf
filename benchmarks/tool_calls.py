"""Calls per second of each tool environment: the moves of its expert (or its gold), one episode at a time.

    python benchmarks/tool_calls.py [--episodes 20]

The policy's own time is not counted. A reset makes the episode's world: a fresh server process for `mcp`.
"""

import argparse
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tutelage.agents.experts import View, expert_for, expert_names
from tutelage.environments.base import Environment
from tutelage.environments.suite import Suite
from tutelage.types import Split, Task

MCP = Path(__file__).resolve().parent.parent / "examples" / "mcp_files" / "tasks.toml"
NAMES = ("bfcl", "bfcl-single", "files", "mcp", "research", "sqlite", "toy")
MOST_STEPS = 60


def play(environment: Environment, task: Task) -> tuple[float, float, int, bool]:
    """Seconds of the reset and of all steps, how many steps there were, and whether the task was solved."""
    gold = list(environment.gold(task)) if hasattr(environment, "gold") else None
    expert = expert_for(environment.name) if environment.name in expert_names() else None
    began = time.perf_counter()
    observation, info = environment.reset(options={"task": task})
    reset, stepping = time.perf_counter() - began, 0.0
    observations, actions, terminated, reward = [observation], [], False, 0.0
    while not terminated and len(actions) < MOST_STEPS:
        if gold is not None:
            action = gold[len(actions)]
        else:
            assert expert is not None, f"{environment.name} has neither gold nor an expert"
            action = expert(View(info["goal"], tuple(observations), tuple(actions)))[1]
        began = time.perf_counter()
        observation, reward, terminated, _, _ = environment.step(action)
        stepping += time.perf_counter() - began
        observations.append(observation)
        actions.append(action)
    return reset, stepping, len(actions), reward > 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=20)
    count = parser.parse_args().episodes
    table = Table("environment", "episodes", "solved", "calls", "reset ms", "call ms", "calls/s", "with resets")
    for name in NAMES:
        suite = Suite.open([(name, (), {"tasks": str(MCP)} if name == "mcp" else {})])
        environment = suite.make(name)
        play(environment, suite.tasks(Split.TRAIN, 0, 1)[0])  # what is loaded once is not measured
        played = [play(environment, task) for task in suite.tasks(Split.TRAIN, 0, count)]
        environment.close()
        resets, stepping = sum(item[0] for item in played), sum(item[1] for item in played)
        calls = sum(item[2] for item in played)
        table.add_row(
            name,
            str(count),
            str(sum(item[3] for item in played)),
            str(calls),
            f"{1000 * resets / count:.1f}",
            f"{1000 * stepping / calls:.2f}",
            f"{calls / stepping:.0f}",
            f"{calls / (stepping + resets):.0f}",
        )
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
