"""The one place that reaches behind TRL's public interface; pinned to TRL 1.16.0 and a contract test."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from trl.trainer import utils

PRIVATE_NAME = "_use_triton"
"""Decides whether the fused LM head scores label positions only, or all of them."""
PLACES = (utils.__name__, "trl.trainer.distillation_trainer")
"""The modules of TRL that have it; the second is only loaded by those who distil."""


@contextmanager
def label_positions_only() -> Iterator[None]:
    """Make TRL's fused LM head skip prompts and padding, also without Triton.

    TRL compacts positions only where Triton runs, to keep tile shapes stable elsewhere. PyTorch on a CPU
    does not care, and an episode has few labels, so half of a step would be spent on discarded logits.
    Loss and gradients are the same. The kernel makes its own check, so the PyTorch code still runs.
    """
    modules = [sys.modules[name] for name in PLACES if name in sys.modules]
    originals = [getattr(module, PRIVATE_NAME) for module in modules]
    for module in modules:
        setattr(module, PRIVATE_NAME, lambda device: True)
    try:
        yield
    finally:
        for module, original in zip(modules, originals, strict=True):
            setattr(module, PRIVATE_NAME, original)
