"""What a running stage would need to go on: taken from a trainer, put back into one, kept in a file.

Our own instead of the Trainer's checkpoints: those know nothing of the self-teacher's moving average, of rollouts, or
of alarms, are not written atomically, and cannot be put back into a trainer that is running. The private names of
Transformers and TRL that are needed are in `PRIVATE`; a contract test watches them.
"""

import os
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer

PRIVATE = ("_globalstep_last_logged", "_buffered_inputs")
"""Of a running trainer: at which step it logged last, and (TRL) what it has made of rollouts."""

State = dict[str, Any]


def weights(trainer: Trainer) -> State:
    """All parameters that are trained, by name; the tensors are the trainer's own."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    return {name: tensor.detach() for name, tensor in model.named_parameters() if tensor.requires_grad}


def training(trainer: Trainer) -> State:
    """The same, with optimiser and self-teacher: what must go back together."""
    assert trainer.optimizer is not None
    teacher = trainer.teacher_state() if hasattr(trainer, "teacher_state") else {}
    return {"weights": weights(trainer), "optimizer": trainer.optimizer.state_dict(), "teacher": teacher}


@torch.no_grad()
def put_back(trainer: Trainer, state: Mapping[str, Any]) -> None:
    """Go back to what `weights` (as ``{"weights": …}``) or `training` returned.

    Batches that the trainer has made of rollouts but not yet trained on are of other weights and are dropped.
    """
    into = weights(trainer)
    if into.keys() != state["weights"].keys():
        raise ValueError(f"another model: {sorted(into.keys() ^ state['weights'].keys())[:3]} differ")
    for name, tensor in into.items():
        tensor.copy_(state["weights"][name])
    if "optimizer" in state:
        assert trainer.optimizer is not None
        trainer.optimizer.load_state_dict(state["optimizer"])
        if hasattr(trainer, "load_teacher_state"):
            trainer.load_teacher_state(state["teacher"])
    if hasattr(trainer, "_buffered_inputs"):
        trainer._buffered_inputs = None


def random_state() -> State:
    """Of all generators that training draws from in this process."""
    return {
        "python": random.getstate(),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def put_back_random(state: Mapping[str, Any]) -> None:
    """Go back to what `random_state` returned."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])


def continue_at(trainer: Trainer, step: int) -> None:
    """Make a trainer that has just begun count from `step` optimiser steps on."""
    trainer.state.global_step = step
    trainer._globalstep_last_logged = step


def write(file: Path, state: Mapping[str, Any], *, sync: bool = True) -> None:
    """`file` appears complete or not at all, replacing what was there.

    Args:
        sync: wait until the disk has it, so that it is whole after a power failure too, not only after a kill.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    made = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with made.open("wb") as stream:
            torch.save(dict(state), stream)
            stream.flush()
            if sync:
                os.fsync(stream.fileno())
        made.replace(file)
    finally:
        made.unlink(missing_ok=True)


def read(file: Path) -> State:
    """What `write` wrote; tensors are on the CPU and may be views of the file."""
    state: State = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    return state
