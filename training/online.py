"""What the stages that learn from their own rollouts (GRPO, SDPO) share: settings, tasks, figures, the end."""

import math
import shutil
import time
from collections.abc import Mapping, Sequence
from itertools import cycle, islice
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer, TrainerCallback
from transformers.trainer_callback import PrinterCallback

from tutelage.config import RolloutStageConfig
from tutelage.training import weights
from tutelage.training.alarms import alarm
from tutelage.training.base import StageContext, StageResult
from tutelage.training.rollout import Rollouts
from tutelage.training.trl_adapter import label_positions_only
from tutelage.types import Split, Task

KEPT = {
    "loss": "loss",
    "grad_norm": "grad_norm",
    "learning_rate": "learning_rate",
    "entropy": "entropy",
    "kl": "kl",
    "self_distillation/policy_loss": "policy_loss",
    "self_distillation/distillation_loss": "distillation_loss",
    "self_distillation/informed_token_fraction": "informed_tokens",
}
"""TRL's names of the figures that are kept → ours."""


def settings(stage: RolloutStageConfig, context: StageContext) -> dict[str, Any]:
    """Arguments of TRL's configs: one batch of rollouts per optimiser step, and one step on each.

    Weights and optimiser are float32 and the arithmetic is bfloat16 where `student.dtype` says so. The
    learning rate is constant after warm-up (TRL: linear decay), as a few steps have nothing to anneal.
    """
    student, micro = context.config.student, stage.micro_batch_size or stage.batch_size
    return {
        "output_dir": str(context.checkpoints),
        "max_steps": stage.steps,
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": stage.batch_size // micro,
        "num_generations": stage.group_size,
        "temperature": stage.temperature,
        "max_completion_length": student.max_new_tokens * context.config.act.max_steps,
        "learning_rate": stage.learning_rate,
        "lr_scheduler_type": "constant_with_warmup",
        "warmup_steps": int(stage.warmup * stage.steps),
        "gradient_checkpointing": stage.gradient_checkpointing,
        "bf16": weights.compute_dtype(student.dtype) is torch.bfloat16,
        "use_cpu": not torch.cuda.is_available(),
        "seed": context.seed,
        "shuffle_dataset": False,
        # Dividing by a group's deviation would blow a lone invalid action up to the size of a success.
        "scale_rewards": "none",
        "save_strategy": "no",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }


def task_rows(stage: RolloutStageConfig, tasks: Sequence[Task]) -> Dataset:
    """One row per group of the whole stage, in the order of `tasks`, from the start again if they run out.

    TRL hands only the prompt to a rollout, so the task travels inside its message.

    Raises:
        ValueError: there is no task, or one that is not of the train split.
    """
    if not tasks or any(task.split is not Split.TRAIN for task in tasks):
        raise ValueError("rollouts need tasks, all of the train split")
    groups = stage.steps * stage.batch_size // stage.group_size
    chosen = list(islice(cycle(tasks), groups))
    return Dataset.from_list(
        [{"prompt": [{"role": "user", "content": task.id, "task": task.model_dump_json()}]} for task in chosen]
    )


def task_of(prompt: Sequence[Mapping[str, str]]) -> Task:
    """The task that a row of `task_rows` carries."""
    return Task.model_validate_json(prompt[0]["task"])


class Figures(TrainerCallback):
    """Collects the figures of every optimiser step, reports progress and stops the run on an alarm."""

    def __init__(self, rollouts: Rollouts, context: StageContext, what: str) -> None:
        self.rollouts, self.context, self.what = rollouts, context, what
        self.history: list[dict[str, float]] = []
        self.alarm = ""
        """Name of the alarm that stopped the run, if one did."""

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._began = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._seconds = time.monotonic() - self._began
        self.context.progress(self.what, state.global_step, state.max_steps)

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **_: Any) -> None:
        if logs is None or "loss" not in logs:  # the summary at the end
            return
        values = dict(self.rollouts.figures[-1])
        values |= {ours: _number(logs[theirs]) for theirs, ours in KEPT.items() if theirs in logs}
        values |= {"step_seconds": self._seconds, "train_seconds": self._seconds - values["rollout_seconds"]}
        self.history.append(values)
        self.alarm = alarm(self.history)
        if self.alarm:
            values[f"alarm/{self.alarm}"] = 1.0
            control.should_training_stop = True


def train(trainer: Trainer, figures: Figures) -> None:
    """Train to the end or to the first alarm."""
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(figures)
    with label_positions_only():
        trainer.train()


def finish(
    trainer: Trainer, tokenizer: PreTrainedTokenizerBase, figures: Figures, experiences: Sequence[str] = ()
) -> StageResult:
    """Save the new weights, or the starting ones after an alarm, and keep all rollouts in one transaction."""
    context = figures.context
    if figures.alarm:
        model, tokenizer = weights.load(context.start)
    else:
        model = merged(trainer.accelerator.unwrap_model(trainer.model))
        model.config.use_cache = True  # the trainer turns it off
    digest = weights.save(model, tokenizer, context.folder)
    trained = _keep_rollouts(figures)
    shutil.rmtree(context.checkpoints, ignore_errors=True)
    return StageResult(
        folder=context.folder,
        digest=digest,
        trajectories=() if figures.alarm else trained,
        experiences=() if figures.alarm else tuple(experiences),
        metrics=list(enumerate(figures.history, start=1)),
    )


def merged(model: Any) -> PreTrainedModel:
    """The model itself, or with its LoRA adapter merged into it."""
    return model.merge_and_unload(adapter_names=["default"]) if hasattr(model, "merge_and_unload") else model


def _keep_rollouts(figures: Figures) -> tuple[str, ...]:
    """Write all rollouts; ids of those that carried loss. After a kill behind this point, the first run's stand."""
    context, record = figures.context, figures.context.record
    trained: list[str] = []
    with record.transaction():
        for step, episodes in enumerate(figures.rollouts.batches, start=1):
            for place, episode in enumerate(episodes):
                key = f"{context.cycle}/{figures.what}/{context.number}/{step}/{place}"
                record.add_trajectory(episode.trajectory, key=key, cycle=context.cycle, arm=figures.what)
                kept = record.trajectory_by_key(key)
                assert kept is not None
                if not episode.broken:
                    trained.append(kept.id)
    return tuple(trained)


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
