"""When to stop a run before it does harm: one place, looked at after every optimiser step."""

import math
from collections.abc import Mapping, Sequence

INVALID_RATE = 0.5
"""Below this share of invalid actions there is no alarm."""
INVALID_GROWTH = 2.0
"""Growth of that share over the first step's that raises the alarm."""


def alarm(history: Sequence[Mapping[str, float]]) -> str:
    """Name of the alarm that the newest figures raise, or the empty string.

    Args:
        history: figures of every optimiser step so far (`loss`, `grad_norm`, `invalid_rate`, `broken`).
    """
    first, now = history[0], history[-1]
    if any(not math.isfinite(now.get(name, 0.0)) for name in ("loss", "grad_norm")):
        return "loss_not_finite"
    if now.get("broken", 0.0) == 1:
        return "all_episodes_broken"
    if now.get("invalid_rate", 0.0) >= max(INVALID_RATE, INVALID_GROWTH * first.get("invalid_rate", 0.0)):
        return "invalid_actions"
    return ""
