"""Step time of the `grpo` and `sdpo` trainers against TRL's own, on the same batch: loss, gradient and optimiser step.

    python benchmarks/step_time.py [--weights medium] [--dtype float32] [--episodes 4] [--prompt 300] [--sampled 60]
                                   [--runs 7]

Both trainers get the same tokens, rewards, log-probabilities and (SDPO) privileged text, and the same weights; runs
alternate between them and medians are compared, by the clock and by processor time. Rollouts are not in it. GRPO is
measured on single turns and on four turns, where TRL's trainer is given the mask of what the environment wrote; SDPO on
single turns, as TRL's has no others, and without the update of the average. Losses must agree, or the comparison means
nothing. `medium` is a random model of three layers with a real vocabulary's size.
"""

import argparse
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from transformers import LlamaForCausalLM
from trl import GRPOConfig as TrlConfig
from trl import GRPOTrainer

from tutelage.config import Config
from tutelage.environments.toy import Toy
from tutelage.measures import Student
from tutelage.record import Record
from tutelage.stage_config import GrpoConfig, SdpoConfig
from tutelage.training import grpo, sdpo, weights
from tutelage.training.base import StageContext
from tutelage.training.online import settings, task_rows
from tutelage.training.privileged import Privileged
from tutelage.training.rollout import Episode, Rollouts, flatten
from tutelage.training.sdpo_trainer import ScoredEpisode, ScoredTurn, SDPOConfig, SDPOTrainer
from tutelage.training.trl_adapter import label_positions_only
from tutelage.types import Ending, Split, Tokens, Trajectory

Batch = dict[str, Any]
REWARDS = (1.0, 0.0, 0.25, -0.05)
"""In turn; they differ within every group, so nothing is left out."""


class Timed:
    """One trainer with its prepared batch."""

    def __init__(self, trainer: Any, batch: Batch, patch: Callable[[], AbstractContextManager[None]]) -> None:
        self.trainer, self.batch, self._patch = trainer, batch, patch
        trainer.create_optimizer()
        self._model = trainer.accelerator.prepare_model(trainer.model)
        self.losses: list[float] = []
        self.wall: list[float] = []
        self.cpu: list[float] = []

    def step(self) -> None:
        wall, cpu = time.perf_counter(), time.process_time()
        with self._patch():
            loss = self.trainer.compute_loss(self._model, self.batch)
        loss.backward()
        self.trainer.optimizer.step()
        self.trainer.optimizer.zero_grad()
        self.wall.append(time.perf_counter() - wall)
        self.cpu.append(time.process_time() - cpu)
        self.losses.append(loss.item())


def medium(folder: Path) -> str:
    """A random model of three layers and 32,768 tokens, with the tokenizer of `tiny`."""
    small, tokenizer = weights.load("tiny")
    config = small.config.__class__.from_dict(
        small.config.to_dict()
        | {
            "num_hidden_layers": 3,
            "hidden_size": 384,
            "intermediate_size": 1024,
            "num_attention_heads": 6,
            "num_key_value_heads": 3,
            "head_dim": 64,
            "vocab_size": 32768,
        }
    )
    torch.manual_seed(0)
    weights.save(LlamaForCausalLM(config), tokenizer, folder / "medium")
    return str(folder / "medium")


def context_of(name: str, args: argparse.Namespace, folder: Path, record: Record) -> StageContext:
    student = {"weights": name, "dtype": args.dtype, "max_new_tokens": args.sampled, "max_length": 4096}
    return StageContext(
        record=record,
        workspace=folder,
        config=Config.model_validate({"student": student, "act": {"max_steps": 1}}),
        cycle=1,
        student=Student(number=0, stage="base", cycle=0, weights=name),
        number=1,
        tasks=Toy.tasks(Split.TRAIN, count=1),
        trajectories=[],
        make_environment=lambda _: Toy(),
    )


def ready(trainer: Any) -> Any:
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    return trainer


def made_up(args: argparse.Namespace, turns: int) -> list[Episode]:
    """Episodes of `turns` turns, of up to a third more or less than the lengths asked for."""
    rng = random.Random(0)

    def ids(length: int) -> tuple[int, ...]:
        return tuple(rng.randrange(10, 4000) for _ in range(max(1, round(length * rng.uniform(0.67, 1.33)))))

    found = []
    for number in range(args.episodes):
        played = []
        for turn in range(turns):
            sampled = ids(args.sampled // turns)
            seen = ids(args.prompt if turn == 0 else args.prompt // 3)
            played.append(Tokens(prompt=seen, sampled=sampled, logprobs=tuple(rng.gauss(-9, 1) for _ in sampled)))
        trajectory = Trajectory(
            task=Toy.tasks(Split.TRAIN, count=1)[0],
            goal="",
            system="",
            policy="made up",
            memory=False,
            steps=(),
            ending=Ending.FAILED,
        )
        found.append(Episode(trajectory, tuple(played), REWARDS[number % len(REWARDS)], broken=False))
    return found


def grpo_pair(context: StageContext, args: argparse.Namespace, turns: int) -> tuple[Timed, Timed]:
    stage = GrpoConfig(steps=1, batch_size=args.episodes, group_size=2, warmup=0)
    episodes = made_up(args, turns)

    class Played:
        """Stands where a stage has its rollouts: the same episodes every time."""

        figures: list[dict[str, float]] = [{}]

        def __call__(self, tasks: Any, model: Any) -> list[Episode]:
            return episodes

    def rollout(prompts: Any, trainer: Any) -> dict[str, list[Any]]:
        flat = [flatten(episode) for episode in episodes]
        return {
            "prompt_ids": [item.prompt_ids for item in flat],
            "completion_ids": [item.completion_ids for item in flat],
            "logprobs": [item.logprobs for item in flat],
            "env_mask": [item.mask for item in flat],
            "episode_reward": [episode.reward for episode in episodes],
        }

    model, tokenizer = weights.load(context.start)
    stock = GRPOTrainer(
        model=model,
        reward_funcs=grpo.episode_reward,
        args=TrlConfig(
            loss_type="dapo", beta=0.0, epsilon=stage.clip, epsilon_high=stage.clip_high, **settings(stage, context)
        ),
        train_dataset=task_rows(stage, context.tasks),
        processing_class=tokenizer,
        rollout_func=rollout,
    )
    model, tokenizer = weights.load(context.start)
    ours = grpo.make_trainer(stage, context, model, tokenizer, Played())  # type: ignore[arg-type]
    return tuple(
        Timed(ready(trainer), trainer._prepare_inputs(_rows(trainer, args.episodes)), patch)
        for trainer, patch in ((stock, nullcontext), (ours, label_positions_only))
    )  # type: ignore[return-value]


def sdpo_pair(context: StageContext, args: argparse.Namespace) -> tuple[Timed, Timed]:
    """TRL's trainer samples and re-prompts; ours is given what came out of that, token for token."""
    stage = SdpoConfig(steps=1, batch_size=args.episodes, group_size=2, warmup=0, temperature=0.9)
    words = random.Random(1)

    def text(length: int) -> str:
        return " ".join(words.choice(("press", "the", "red", "button", "tick", "box", "then")) for _ in range(length))

    rows = [
        {"prompt": text(args.prompt), "privileged_context": text(args.prompt // 4)} for _ in range(args.episodes // 2)
    ]
    model, tokenizer = weights.load(context.start)
    model.config._name_or_path = context.start
    rewards = [REWARDS[number % len(REWARDS)] for number in range(args.episodes)]
    stock = SDPOTrainer(
        model=model,
        reward_funcs=lambda completions, **_: rewards,
        args=SDPOConfig(
            distillation_mode="topk_logits",
            distillation_topk=stage.top_k,
            distillation_add_tail=stage.tail,
            distillation_alpha=stage.alpha,
            distillation_weight=stage.distillation_weight,
            distillation_is_clip=stage.clip,
            include_environment_feedback=True,
            teacher_model_kind="ema",
            **settings(stage, context),
        ),
        train_dataset=[*rows],
        processing_class=tokenizer,
    )
    ready(stock)
    batch = stock._prepare_training_batch([rows[index // 2] for index in range(args.episodes)])
    generator = torch.Generator().manual_seed(0)
    batch["old_per_token_logps"] = torch.randn(batch["completion_ids"].shape, generator=generator) - 9
    taken = list(_as_episodes(batch, rewards))
    model, tokenizer = weights.load(context.start)
    rollouts = Rollouts(stage, context, tokenizer)
    ours = ready(sdpo.make_trainer(stage, context, model, tokenizer, rollouts, Privileged(stage, None, tokenizer)))
    ours.rollout = lambda rows, _: taken
    mine = ours._prepare_training_batch(_rows(ours, args.episodes))
    return Timed(stock, batch, nullcontext), Timed(ours, mine, label_positions_only)


def _as_episodes(batch: Batch, rewards: list[float]) -> Iterator[ScoredEpisode]:
    """TRL's batch as single turns of ours."""
    for index, reward in enumerate(rewards):
        prompt, sampled, told = (
            batch[ids][index][batch[mask][index].bool()].tolist()
            for ids, mask in (
                ("prompt_ids", "prompt_mask"),
                ("completion_ids", "completion_mask"),
                ("teacher_input_ids", "teacher_attention_mask"),
            )
        )
        logprobs = batch["old_per_token_logps"][index, : len(sampled)].tolist()
        yield ScoredEpisode([ScoredTurn(prompt, told[: -len(sampled)], sampled, logprobs, True)], reward)


def _rows(trainer: Any, episodes: int) -> list[Any]:
    return [trainer.train_dataset[index // 2] for index in range(episodes)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="medium", help="medium, tiny, smollm2, or what student.weights may be")
    parser.add_argument("--dtype", default="float32", choices=["auto", "float32", "bfloat16"])
    parser.add_argument("--episodes", type=int, default=4, help="an even number")
    parser.add_argument("--prompt", type=int, default=300, help="tokens (SDPO: words)")
    parser.add_argument("--sampled", type=int, default=60)
    parser.add_argument("--runs", type=int, default=7, help="of each trainer, after one that does not count")
    args = parser.parse_args()
    table = Table("stage", "turns", "trainer", "wall s", "against TRL", "processor s", "against TRL", "first loss")
    with tempfile.TemporaryDirectory() as folder, closing(Record.open(Path(folder))) as record, weights.quiet():
        name = medium(Path(folder)) if args.weights == "medium" else str(weights.ensure(args.weights))
        context = context_of(name, args, Path(folder), record)
        pairs: list[tuple[str, int, Callable[[], tuple[Timed, Timed]]]] = [
            ("grpo", 1, lambda: grpo_pair(context, args, 1)),
            ("grpo", 4, lambda: grpo_pair(context, args, 4)),
            ("sdpo", 1, lambda: sdpo_pair(context, args)),
        ]
        for stage, turns, make in pairs:
            stock, ours = make()
            for _ in range(args.runs + 1):
                stock.step()
                ours.step()
            for label, timed in (("TRL", stock), ("ours", ours)):
                cells = []
                for mine, theirs in ((timed.wall, stock.wall), (timed.cpu, stock.cpu)):
                    cells += [f"{median(mine[1:]):.3f}", f"{median(mine[1:]) / median(theirs[1:]):.2f}x"]
                table.add_row(stage, str(turns), label, *cells, f"{timed.losses[0]:.6f}")
    shape = f"{args.episodes} episodes, prompt {args.prompt}, {args.sampled} sampled tokens"
    Console(width=120).print(
        f"{args.weights}, {args.dtype}, {shape}, {torch.get_num_threads()} threads, medians of {args.runs}", table
    )


if __name__ == "__main__":
    main()
