"""What stages that learn from their own rollouts (GRPO, SDPO, distillation) share: settings, tasks, figures, end."""

import shutil
from collections.abc import Mapping, Sequence
from itertools import cycle, islice
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase, Trainer
from transformers.trainer_callback import PrinterCallback

from tutelage.stage_config import RolloutStageConfig
from tutelage.training import ranks, weights
from tutelage.training.base import StageContext, StageResult
from tutelage.training.brakes import START
from tutelage.training.policy import merged
from tutelage.training.trl_adapter import label_positions_only
from tutelage.training.watching import Figures
from tutelage.types import Split, Task

__all__ = ["Figures", "finish", "settings", "task_of", "task_rows", "train"]


def settings(stage: RolloutStageConfig, context: StageContext) -> dict[str, Any]:
    """Arguments of TRL's configs: one batch of rollouts per optimiser step, and one step on each.

    Weights and optimiser are float32 and the arithmetic is bfloat16 where `student.dtype` says so. The
    learning rate is constant after warm-up (TRL: linear decay), as a few steps have nothing to anneal.
    """
    student = context.config.student
    micro, passes = ranks.passes(stage.batch_size, stage.micro_batch_size)
    return {
        "output_dir": str(context.checkpoints),
        "max_steps": stage.steps,
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": passes,
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


def train(trainer: Trainer, figures: Figures) -> None:
    """Train to the end or to the alarm that stops the stage, from the last checkpoint if there is one."""
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(figures)
    figures.attach(trainer)
    with label_positions_only():
        trainer.train()


def finish(
    trainer: Trainer, tokenizer: PreTrainedTokenizerBase, figures: Figures, experiences: Sequence[str] = ()
) -> StageResult:
    """Save the new weights, or after an alarm the last good ones, and keep what rollouts the record has not got."""
    context = figures.context
    if figures.stopped and figures.brakes.good == START:
        model, tokenizer = weights.load(context.start)
    else:
        if figures.stopped:
            figures.brakes.go_back(trainer)
        model = merged(trainer.accelerator.unwrap_model(trainer.model))
        model.config.use_cache = True  # the trainer turns it off
    ranks.agree(lambda: weights.digest(model), "weights")
    digest = ranks.first(lambda: weights.save(model, tokenizer, context.folder))
    trained = figures.learnt.keep()
    ranks.first(lambda: shutil.rmtree(context.checkpoints, ignore_errors=True))
    start = [(0, figures.begun)] if figures.begun else []
    return StageResult(
        folder=context.folder,
        digest=digest,
        trajectories=trained,
        experiences=tuple(experiences) if trained else (),
        metrics=[*start, *enumerate(figures.history, start=1)],
    )
