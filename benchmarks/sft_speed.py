"""SFT tokens/s of the `sft` stage against TRL's own trainer: same rows, weights, dtype, batch and checkpointing.

    python benchmarks/sft_speed.py [--weights smollm2] [--dtype auto] [--steps 6] [--batch 8] [--rows 256]

Both run TRL's SFTTrainer with float32 weights (bfloat16 autocast where `--dtype` says so). Ours scores label
positions only and lays batches out by length. Two comparisons: on the very same batches, where the losses must
agree, and each in its own order. Tokens exclude padding; the first step of each run is left out as warm-up.
"""

import argparse
import random
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tutelage.config import Config
from tutelage.measures import Student
from tutelage.record import Record
from tutelage.stage_config import SftConfig
from tutelage.training import weights
from tutelage.training.base import StageContext
from tutelage.training.chat import ChatEncoder
from tutelage.training.samples import row_order, sft_rows
from tutelage.training.sft import Steps, make_trainer
from tutelage.training.trl_adapter import label_positions_only
from tutelage.types import Diagnosis, Ending, Split, Step, Task, Trajectory


def episodes(count: int) -> Iterator[Trajectory]:
    """Made-up episodes of one to four turns on pages of 2 to 16 lines."""
    rng = random.Random(0)
    for number in range(count):
        steps = []
        for _ in range(rng.randint(1, 4)):
            page = [
                f'[r{line}] button "{rng.choice(("yes", "no", "send", "later"))}"' for line in range(rng.randint(2, 16))
            ]
            reply = f'click("r{rng.randrange(len(page))}")'
            steps.append(
                Step(
                    observation="\n".join(page),
                    reply=reply,
                    action=reply,
                    after="",
                    diagnosis=Diagnosis(cause="progress"),
                )
            )
        yield Trajectory(
            task=Task(environment="made-up", family="press", seed=number, split=Split.TRAIN),
            goal="press what is right",
            system="You operate a web page. Answer with one action.",
            policy="made-up",
            memory=False,
            steps=tuple(steps),
            ending=Ending.SOLVED,
        )


def measure(
    order: list[int], patch: AbstractContextManager[None], args: argparse.Namespace
) -> tuple[float, list[float]]:
    """Tokens per second and the losses of training on rows in this order."""
    with tempfile.TemporaryDirectory() as folder, patch:
        record = Record.open(Path(folder))
        config = Config.model_validate({"student": {"weights": args.weights, "dtype": args.dtype}})
        context = StageContext(
            record=record,
            workspace=Path(folder),
            config=config,
            cycle=1,
            student=Student(number=0, stage="base", cycle=0, weights=args.weights),
            number=1,
            tasks=[],
            trajectories=list(episodes(args.rows)),
        )
        stage = SftConfig(
            steps=args.steps,
            batch_size=args.batch,
            checkpoint_every=args.steps + 1,
            gradient_checkpointing=args.gradient_checkpointing,
        )
        model, tokenizer = weights.load(args.weights)
        rows = sft_rows(context.trajectories, ChatEncoder(tokenizer)).dataset
        lengths = [len(ids) for ids in rows["input_ids"]]
        tokens = [
            sum(lengths[row] for row in order[start : start + args.batch]) for start in range(0, len(order), args.batch)
        ]
        steps = Steps(stage, context, lengths, lengths, order)
        trainer = make_trainer(stage, context, model, tokenizer, rows.select(order), steps)
        trainer.args.save_strategy = "no"
        trainer.train()
        history = [entry for entry in trainer.state.log_history if "loss" in entry]
        record.close()
    return sum(tokens[1:]) / sum(entry["seconds"] for entry in history[1:]), [entry["loss"] for entry in history]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="smollm2")
    parser.add_argument("--dtype", default="auto", choices=["auto", "float32", "bfloat16"])
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--gradient-checkpointing", action="store_true")
    args = parser.parse_args()
    _, tokenizer = weights.load(args.weights)
    lengths = [len(ids) for ids in sft_rows(list(episodes(args.rows)), ChatEncoder(tokenizer)).dataset["input_ids"]]
    shuffled = random.Random(0).sample(range(args.rows), args.steps * args.batch)
    bucketed = row_order(lengths, batch_size=args.batch, steps=args.steps, seed=0)
    dtype = str(weights.compute_dtype(args.dtype)).removeprefix("torch.")
    table = Table("trainer", "batches", "tokens/s", "against stock", "losses")
    stock = 0.0
    for name, batches, order, patch in (
        ("TRL SFTTrainer", "random", shuffled, nullcontext()),
        ("sft stage", "the same", shuffled, label_positions_only()),
        ("sft stage", "by length", bucketed, label_positions_only()),
    ):
        speed, losses = measure(order, patch, args)
        stock = stock or speed
        table.add_row(name, batches, f"{speed:.0f}", f"{speed / stock:.2f}x", " ".join(f"{x:.4f}" for x in losses))
    Console(width=140).print(f"{args.weights}, float32 weights, {dtype} products, batch {args.batch}", table)


if __name__ == "__main__":
    main()
