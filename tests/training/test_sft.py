"""Fine-tuning learns, repeats itself exactly, survives a kill, and leaves plain weights behind."""

import dataclasses
import re
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from itertools import count
from types import SimpleNamespace

import pytest
import torch

from tutelage.corrections import Correction
from tutelage.errors import TutelageError
from tutelage.results import AlarmDoc, load
from tutelage.stage_config import SftConfig
from tutelage.training import sft, trl_adapter, weights
from tutelage.training.base import StageContext, StageResult, run_stage
from tutelage.types import Diagnosis, Ending, Split, Step, Task, Trajectory

STAGE = SftConfig(steps=6, batch_size=4, learning_rate=3e-3, checkpoint_every=2)
TIMES = {"seconds", "tokens_per_second"}


class Killed(Exception):
    """Stands for a kill between two steps."""


def episode(number: int) -> Trajectory:
    reply = f'click("r{number % 3}")'
    step = Step(
        observation=f'[r{number % 3}] button "go"\n' + 'text "x"\n' * (number % 5),
        reply=reply,
        action=reply,
        after="",
        diagnosis=Diagnosis(cause="solved"),
    )
    task = Task(environment="toy", family="press", seed=number, split=Split.TRAIN)
    return Trajectory(
        task=task, goal="go", system="s", policy="test", memory=False, steps=(step, step), ending=Ending.SOLVED
    )


def training(make: Callable[..., StageContext], folder: str, **student: object) -> StageContext:
    return dataclasses.replace(make(folder, **student), trajectories=[episode(number) for number in range(20)])


def figures(result: StageResult) -> list[tuple[int, dict[str, float]]]:
    return [(step, {k: v for k, v in values.items() if k not in TIMES}) for step, values in result.metrics]


def killed_at_5(what: str, done: int, total: int) -> None:
    if done == 5:
        raise Killed


def test_learns_and_repeats_itself_after_a_kill(stage_context: Callable[..., StageContext]) -> None:
    whole = run_stage(STAGE, training(stage_context, "whole"))
    losses = [values["loss"] for step, values in whole.metrics if step]
    assert losses[-1] < 0.8 * losses[0]
    assert whole.metrics[0] == (0, {"rows": 20.0, "rows_corrected": 0.0, "too_long": 0.0, "nothing_to_learn": 0.0})

    broken = training(stage_context, "killed")
    with pytest.raises(Killed):
        run_stage(STAGE, dataclasses.replace(broken, progress=killed_at_5))
    assert not broken.folder.exists()
    (broken.checkpoints / "checkpoint-5").mkdir()  # as a kill in the middle of writing leaves it
    seen: list[int] = []
    result = run_stage(STAGE, dataclasses.replace(broken, progress=lambda what, done, total: seen.append(done)))
    assert seen == [5, 6], "it went on after the last complete checkpoint"
    assert result.digest == whole.digest
    assert figures(result) == figures(whole)
    assert not broken.checkpoints.exists()
    model, _ = weights.load(str(result.folder))
    assert weights.digest(model) == result.digest
    assert model.config.use_cache


@pytest.mark.parametrize(("rate", "forgotten"), [(1.0, 0), (0.5, 0), (1.0, 10)])
def test_a_checkpoint_of_other_settings_or_rows_is_not_continued(
    stage_context: Callable[..., StageContext], rate: float, forgotten: int
) -> None:
    context, seen = training(stage_context, "a"), []
    with pytest.raises(Killed):
        run_stage(STAGE, dataclasses.replace(context, progress=killed_at_5))
    left = context.trajectories[forgotten:]
    stage = STAGE.model_copy(update={"learning_rate": rate * STAGE.learning_rate})
    again = dataclasses.replace(context, trajectories=left, progress=lambda what, done, total: seen.append(done))
    result = run_stage(stage, again)
    assert seen[0] == (1 if rate < 1 or forgotten else 5)
    assert set(result.trajectories) <= {item.id for item in left}


def test_activations_computed_again_give_the_same_gradients(stage_context: Callable[..., StageContext]) -> None:
    results = [
        run_stage(STAGE.model_copy(update={"gradient_checkpointing": again}), training(stage_context, str(again)))
        for again in (False, True)
    ]
    kept, made = ([values["grad_norm"] for step, values in result.metrics if step] for result in results)
    assert made == pytest.approx(kept, rel=1e-4)


def test_a_loss_that_is_not_a_number_leaves_the_student_as_it_was(stage_context: Callable[..., StageContext]) -> None:
    context = training(stage_context, "a")
    result = run_stage(STAGE.model_copy(update={"learning_rate": 1e30}), context)
    assert result.digest == weights.digest(weights.load("tiny")[0])
    assert result.trajectories == ()
    (alarm,) = load(context.record, AlarmDoc)
    assert re.fullmatch(r"sft step [2-6]: (loss|grad_norm) is (nan|inf): stopped with the starting weights", alarm.text)
    assert result.metrics[-1][0] == alarm.step < STAGE.steps
    assert not context.checkpoints.exists()


def test_a_stage_ends_in_its_time_killed_or_not(
    stage_context: Callable[..., StageContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four steps of a second each, as the clock here has it; what was taken before the kill counts."""
    monkeypatch.setattr(sft, "time", SimpleNamespace(monotonic=partial(next, count(0.0))))
    stage = STAGE.model_copy(update={"seconds": 4.0})
    context = training(stage_context, "timed")

    def kill(what: str, done: int, total: int) -> None:
        if done == 3:
            raise Killed

    with pytest.raises(Killed):
        run_stage(stage, dataclasses.replace(context, progress=kill))
    result = run_stage(stage, context)
    assert [step for step, _ in result.metrics] == [0, 1, 2, 3, 4]
    assert len(result.trajectories) == 16, "four batches, and none of those that were only laid out"
    whole = run_stage(stage, training(stage_context, "whole"))
    assert result.digest == whole.digest
    assert all(values["trained_tokens"] > 0 for step, values in result.metrics if step)


def test_adapter_is_merged_and_kept(stage_context: Callable[..., StageContext]) -> None:
    result = run_stage(STAGE, training(stage_context, "lora", method="lora", lora_rank=4, lora_alpha=8))
    assert (result.folder / "adapter" / "adapter_model.safetensors").is_file()
    merged, _ = weights.load(str(result.folder))
    start, _ = weights.load("tiny")
    assert [name for name, _ in merged.named_parameters()] == [name for name, _ in start.named_parameters()]
    assert not torch.equal(merged.model.layers[0].mlp.up_proj.weight, start.model.layers[0].mlp.up_proj.weight)
    assert torch.equal(merged.model.embed_tokens.weight, start.model.embed_tokens.weight)


def test_corrections_take_part_only_where_the_stage_wants_them(stage_context: Callable[..., StageContext]) -> None:
    stage = STAGE.model_copy(update={"steps": 2})
    failed = episode(99)
    correction = Correction(trajectory=failed.id, step=1, reply="noop()", author="teacher")
    given = {"trajectories": [episode(0)], "corrections": [(failed, correction)] * 2}
    on, off = (dataclasses.replace(stage_context(folder), **given) for folder in ("on", "off"))
    result = run_stage(stage, on)
    assert result.metrics[0][1] == {"rows": 3.0, "rows_corrected": 2.0, "too_long": 0.0, "nothing_to_learn": 0.0}
    assert result.trajectories == (on.trajectories[0].id, failed.id), "each once"
    without = run_stage(stage.model_copy(update={"corrections": False}), off)
    assert without.trajectories == (off.trajectories[0].id,)


def test_nothing_to_learn_is_one_clear_line(stage_context: Callable[..., StageContext]) -> None:
    with pytest.raises(TutelageError, match="nothing to fine-tune on"):
        run_stage(STAGE, stage_context())


def test_scoring_label_positions_only_changes_nothing(
    stage_context: Callable[..., StageContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pins the private name of TRL that the adapter replaces, and that it is safe to replace."""
    assert trl_adapter.utils._use_triton(torch.device("cpu")) is False, "TRL has changed: is the adapter needed?"
    stage = STAGE.model_copy(update={"steps": 2})
    ours = run_stage(stage, training(stage_context, "ours"))
    monkeypatch.setattr(sft, "label_positions_only", nullcontext)
    stock = run_stage(stage, training(stage_context, "stock"))
    for (_, one), (_, other) in zip(figures(ours), figures(stock), strict=True):
        assert one == pytest.approx(other, rel=1e-4)
