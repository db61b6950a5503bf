"""Supervised fine-tuning on accepted episodes and corrections, through TRL's SFTTrainer.

Master weights and optimiser are float32; matrix products run in bfloat16 where the processor has it.
The learning rate warms up linearly and then decays as a cosine or stays. The rows of the whole run are
laid out beforehand (`samples.row_order`), so the same seed gives the same run, killed and continued or not.
A loss or gradient that is not finite ends the stage with the weights that it began with.
"""

import json
import shutil
import time
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback
from transformers.trainer_callback import PrinterCallback
from trl import SFTConfig as TrlConfig
from trl import SFTTrainer

from tutelage.errors import TutelageError
from tutelage.results import AlarmDoc, save
from tutelage.stage_config import SftConfig
from tutelage.training import ranks, weights
from tutelage.training.alarms import at_once
from tutelage.training.base import StageContext, StageResult, identity, load_start, lora, time_is_up
from tutelage.training.chat import ChatEncoder
from tutelage.training.policy import merged
from tutelage.training.samples import IGNORED, row_order, sft_rows
from tutelage.training.trl_adapter import label_positions_only

KEPT = (
    "loss",
    "grad_norm",
    "learning_rate",
    "entropy",
    "mean_token_accuracy",
    "tokens_per_second",
    "trained_tokens",
    "seconds",
)

STARTED_FROM = "start.json"
"""Beside the checkpoints: what they are of, `base.identity` and the rows in their order."""


def run(stage: SftConfig, context: StageContext) -> StageResult:
    """Train on `context.trajectories` and `context.corrections`, from the last checkpoint if there is one.

    Raises:
        TutelageError: there is nothing to learn from.
        MissingPart: the starting weights are not here.
    """
    model, tokenizer = load_start(context)
    corrections = context.corrections if stage.corrections else ()
    rows = sft_rows(context.trajectories, ChatEncoder(tokenizer), context.config.student.max_length, corrections)
    if not len(rows.dataset):
        raise TutelageError(
            f"nothing to fine-tune on: {len(context.trajectories)} accepted trajectories, {rows.too_long} of them "
            f"longer than student.max_length, {rows.nothing_to_learn} without an accepted turn"
        )
    lengths = [len(ids) for ids in rows.dataset["input_ids"]]
    order = row_order(lengths, batch_size=stage.batch_size, steps=stage.steps, seed=context.seed)
    steps = Steps(stage, context, lengths, _learned(rows.dataset), order)
    trainer = make_trainer(stage, context, model, tokenizer, rows.dataset.select(order), steps)
    trainer.remove_callback(PrinterCallback)
    start = identity(stage, context) + _digest(rows.dataset, order)
    with label_positions_only():
        # One process decides, for it removes what is of no use.
        trainer.train(resume_from_checkpoint=ranks.first(lambda: _go_on(start, context)))
    if steps.stopped:
        trained, used = weights.load(context.start)[0], set()
    else:
        trained = trainer.accelerator.unwrap_model(trainer.model)
        used = set(order[: trainer.state.global_step * stage.batch_size])
    ranks.agree(lambda: weights.digest(trained), "weights")
    digest = ranks.first(lambda: _save(trained, tokenizer, context))
    counts = {
        "rows": len(lengths),
        "rows_corrected": rows.corrected,
        "too_long": rows.too_long,
        "nothing_to_learn": rows.nothing_to_learn,
    }
    return StageResult(
        folder=context.folder,
        digest=digest,
        trajectories=tuple(dict.fromkeys(rows.trajectories[row] for row in sorted(used))),
        metrics=[(0, {name: float(value) for name, value in counts.items()}), *_metrics(trainer.state.log_history)],
    )


def make_trainer(
    stage: SftConfig,
    context: StageContext,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Dataset,
    callback: TrainerCallback,
) -> SFTTrainer:
    """TRL's trainer over `rows`, which hold every batch of the run in order."""
    student = context.config.student
    micro, passes = ranks.passes(stage.batch_size, stage.micro_batch_size)
    args = TrlConfig(
        output_dir=str(context.checkpoints),
        max_steps=stage.steps,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=passes,
        learning_rate=stage.learning_rate,
        lr_scheduler_type="cosine" if stage.schedule == "cosine" else "constant_with_warmup",
        warmup_steps=int(stage.warmup * stage.steps),
        gradient_checkpointing=stage.gradient_checkpointing,
        bf16=weights.compute_dtype(student.dtype) is torch.bfloat16,
        use_cpu=not torch.cuda.is_available(),
        seed=context.seed,
        train_sampling_strategy="sequential",
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
        save_steps=stage.checkpoint_every,
        save_total_limit=2,
        logging_steps=1,
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    return SFTTrainer(
        model=model,
        args=args,
        train_dataset=rows,
        processing_class=tokenizer,
        peft_config=lora(context),
        callbacks=[callback],
    )


def _digest(rows: Dataset, order: Sequence[int]) -> str:
    """Of all tokens and labels, in the order that they are trained on in."""
    return sha256(json.dumps([rows["input_ids"][:], rows["labels"][:], order]).encode()).hexdigest()


def _go_on(start: str, context: StageContext) -> str | None:
    """The checkpoint to go on from; those of another start, be it settings, student or rows, are of no use and go."""
    note = context.checkpoints / STARTED_FROM
    if note.is_file() and note.read_text() != start:
        shutil.rmtree(context.checkpoints)
    context.checkpoints.mkdir(parents=True, exist_ok=True)
    made = note.with_name(f".{note.name}")
    made.write_text(start)
    made.replace(note)
    return last_checkpoint(context.checkpoints)


def last_checkpoint(folder: Path) -> str | None:
    """The newest complete checkpoint; one that a kill left half-written is removed."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]), reverse=True)
    for path in found:
        # The trainer writes its state last, so a readable one means that the rest is complete.
        try:
            json.loads((path / "trainer_state.json").read_text())
        except (OSError, ValueError):
            shutil.rmtree(path)
        else:
            return str(path)
    return None


class Steps(TrainerCallback):
    """Measures every step, reports progress and ends the stage in time or before it does harm; the trainer keeps the
    figures in its history.

    Args:
        lengths: tokens of each row, padding excluded.
        learned: those of them that carry loss.
        order: rows of all batches, one after the other.
    """

    def __init__(
        self,
        stage: SftConfig,
        context: StageContext,
        lengths: Sequence[int],
        learned: Sequence[int],
        order: Sequence[int],
    ) -> None:
        self.stage, self.context = stage, context
        self._lengths, self._learned, self._order = lengths, learned, order
        self.stopped = False
        """Whether the weights are of no use."""

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.began = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.seconds = time.monotonic() - self.began
        self.context.progress("sft", state.global_step, state.max_steps)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        if not logs or "loss" not in logs:  # the summary at the end
            return
        size = self.stage.batch_size
        rows = self._order[(state.global_step - 1) * size : state.global_step * size]
        state.log_history[-1] |= {
            "seconds": self.seconds,
            "tokens_per_second": sum(self._lengths[row] for row in rows) / self.seconds,
            "trained_tokens": sum(self._learned[row] for row in rows),
        }
        for name, why in at_once({key: float(logs[key]) for key in ("loss", "grad_norm") if key in logs}):
            self._stop(state.global_step, name, why, control)
        taken = [entry["seconds"] for entry in state.log_history if "seconds" in entry]
        if ranks.first(lambda: time_is_up(self.stage, taken)):
            control.should_training_stop = True
            control.should_save = False  # a stage killed behind this must not go on from here

    def _stop(self, step: int, name: str, why: str, control: Any) -> None:
        """End the stage with the starting weights, and say so in the record."""
        self.stopped = control.should_training_stop = True
        control.should_save = False
        if ranks.rank() == 0:
            text = f"sft step {step}: {why}: stopped with the starting weights"
            told = {"cycle": self.context.cycle, "stage": "sft", "student": self.context.number, "step": step}
            save(self.context.record, AlarmDoc(**told, alarm=name, action="stop", good=0, text=text))


def _learned(rows: Dataset) -> list[int]:
    """Tokens of each row that carry loss."""
    return [sum(label != IGNORED for label in labels) for labels in rows["labels"]]


def _save(model: Any, tokenizer: PreTrainedTokenizerBase, context: StageContext) -> str:
    """Save the weights, an adapter merged into them and kept beside, and drop the checkpoints."""
    beside = {}
    if hasattr(model, "merge_and_unload"):
        beside["adapter"] = context.checkpoints / "adapter"
        model.save_pretrained(beside["adapter"], save_embedding_layers=False)
        model = merged(model)
    model.config.use_cache = True  # the trainer turns it off
    digest = weights.save(model, tokenizer, context.folder, beside=beside)
    shutil.rmtree(context.checkpoints, ignore_errors=True)
    return digest


def _metrics(history: list[dict[str, Any]]) -> list[tuple[int, dict[str, float]]]:
    return [
        (int(entry["step"]), {name: float(entry[name]) for name in KEPT if name in entry})
        for entry in history
        if "loss" in entry
    ]
