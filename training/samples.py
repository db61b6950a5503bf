"""What supervised fine-tuning learns from: accepted episodes and corrections as token rows, and their order."""

from collections.abc import Sequence
from random import Random
from typing import NamedTuple

from datasets import Dataset

from tutelage.corrections import Corrected, corrected
from tutelage.training.chat import ChatEncoder
from tutelage.types import Split, Trajectory

IGNORED = -100
"""Label of tokens without loss."""
POOL = 16
"""Batches sorted by length together; larger pools pad less and mix less."""


class SftRows(NamedTuple):
    """One row per episode and per correction, with columns ``input_ids`` and ``labels``; and what was left out."""

    dataset: Dataset
    trajectories: tuple[str, ...]
    """Ids of the trajectories, in the order of the rows."""
    too_long: int
    nothing_to_learn: int
    """Episodes without a single accepted turn."""
    corrected: int = 0
    """Rows that come from corrections, the last ones."""


def sft_rows(
    trajectories: Sequence[Trajectory],
    encoder: ChatEncoder,
    max_length: int = 1536,
    corrections: Sequence[Corrected] = (),
) -> SftRows:
    """Rows of whole episodes as the student would see them without memory, then one row per correction.

    Experiences are stripped from the prompt. Loss is on thought, action and end of turn of accepted turns,
    those whose diagnosis is fine; the other turns stay as context, so the student sees recoveries and does
    not learn the mistakes. A correction's row is the student's own episode up to that state and then the
    teacher's reply, which alone carries loss.

    Raises:
        ValueError: a trajectory is not of the train split.
    """
    rows, ids = [], []
    too_long = nothing = of_corrections = 0
    wanted = [(trajectory, _fine(trajectory)) for trajectory in trajectories]
    wanted += [(corrected(trajectory, item), {item.step}) for trajectory, item in corrections]
    for place, (trajectory, turns) in enumerate(wanted):
        if trajectory.task.split is not Split.TRAIN:
            raise ValueError(f"{trajectory.id} is of the {trajectory.task.split} split; only train may be trained on")
        tokens, mask = encoder.episode(trajectory, experiences=False, turns=turns)
        if not any(mask):
            nothing += 1
        elif len(tokens) > max_length:
            too_long += 1
        else:
            labels = [token if marked else IGNORED for token, marked in zip(tokens, mask, strict=True)]
            rows.append({"input_ids": tokens, "labels": labels})
            ids.append(trajectory.id)
            of_corrections += place >= len(trajectories)
    columns = {name: [row[name] for row in rows] for name in ("input_ids", "labels")}
    return SftRows(Dataset.from_dict(columns), tuple(ids), too_long, nothing, of_corrections)


def _fine(trajectory: Trajectory) -> set[int]:
    return {index for index, step in enumerate(trajectory.steps) if step.diagnosis.fine}


def row_order(lengths: Sequence[int], *, batch_size: int, steps: int, seed: int) -> list[int]:
    """Row numbers of all batches of a run, one after the other (steps × batch_size).

    Every epoch is shuffled anew; rows of similar length share a batch, and batches come in random order.
    The whole order follows from the seed, so a run that was killed goes on with the same rows.
    """
    random = Random(seed)
    rows = list(range(len(lengths))) * -(-batch_size // len(lengths))
    batches: list[list[int]] = []
    while len(batches) < steps:
        random.shuffle(rows)
        whole = len(rows) - len(rows) % batch_size  # the rest, other rows each time, waits for the next epoch
        for start in range(0, whole, batch_size * POOL):
            pool = sorted(rows[start : min(start + batch_size * POOL, whole)], key=lambda row: lengths[row])
            cut = [pool[place : place + batch_size] for place in range(0, len(pool), batch_size)]
            random.shuffle(cut)
            batches += cut
    return [row for batch in batches[:steps] for row in batch]
