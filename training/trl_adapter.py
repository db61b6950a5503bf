"""The one place that reaches behind TRL's public interface; pinned to TRL 1.16.0 and a contract test."""

from collections.abc import Iterator
from contextlib import contextmanager

from trl.trainer import utils

PRIVATE_NAME = "_use_triton"
"""In `trl.trainer.utils`: decides whether the fused LM head scores label positions only, or all of them."""


@contextmanager
def label_positions_only() -> Iterator[None]:
    """Make TRL's fused LM head skip prompts and padding, also without Triton.

    TRL compacts positions only where Triton runs, to keep tile shapes stable elsewhere. PyTorch on a CPU
    does not care, and an episode has few labels, so half of a step would be spent on discarded logits.
    Loss and gradients are the same. The kernel makes its own check, so the PyTorch code still runs.
    """
    original = getattr(utils, PRIVATE_NAME)
    setattr(utils, PRIVATE_NAME, lambda device: True)
    try:
        yield
    finally:
        setattr(utils, PRIVATE_NAME, original)
