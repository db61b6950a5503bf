"""Student episodes served together against one at a time, on the toy environment, memory off.

    python benchmarks/batched_rollouts.py [--weights smollm2] [--dtype auto] [--episodes 16] [--width 8]

Both use the same policy, cache and tasks; only the number of episodes that run at once differs.
"""

import argparse
import time

from rich.console import Console
from rich.table import Table

from tutelage.agents.graph import run_episodes
from tutelage.config import ActConfig
from tutelage.environments.toy import Toy
from tutelage.training import weights
from tutelage.training.policy import StudentPolicy
from tutelage.types import Split, Trajectory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="smollm2")
    parser.add_argument("--dtype", default="auto", choices=["auto", "float32", "bfloat16"])
    parser.add_argument("--episodes", type=int, default=16)
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--max-steps", type=int, default=4)
    args = parser.parse_args()
    dtype = weights.compute_dtype(args.dtype)
    model, tokenizer = weights.load(args.weights, dtype=dtype)
    tasks = Toy.tasks(Split.VALIDATION, count=-(-args.episodes // len(Toy.families())))[: args.episodes]
    table = Table("episodes at once", "seconds", "episodes/s", "turns/s", "speed-up", "same replies")
    first: list[Trajectory] = []
    seconds_alone = 0.0
    for width in (1, args.width):
        policy = StudentPolicy(model, tokenizer, label="student@0")
        act = ActConfig(width=width, max_steps=args.max_steps, stall_after=args.max_steps)
        start = time.perf_counter()
        done = run_episodes(tasks, policy, lambda _: Toy(), act=act)
        seconds = time.perf_counter() - start
        first, seconds_alone = first or done, seconds_alone or seconds
        turns = sum(len(trajectory.steps) for trajectory in done)
        same = sum(
            [step.reply for step in one.steps] == [step.reply for step in other.steps]
            for one, other in zip(first, done, strict=True)
        )
        table.add_row(
            str(width),
            f"{seconds:.1f}",
            f"{len(tasks) / seconds:.2f}",
            f"{turns / seconds:.2f}",
            f"{seconds_alone / seconds:.2f}x",
            f"{same}/{len(tasks)}",
        )
    Console().print(f"{args.weights}, {str(dtype).removeprefix('torch.')}, greedy, {len(tasks)} toy episodes", table)


if __name__ == "__main__":
    main()
