"""What is looked at after every optimiser step, so that a run stops before it does harm.

Figures that are not finite, and a batch whose every episode broke, end a stage at once. Everything else has a threshold
and an action of its own (`AlarmsConfig`) and raises an alarm when it is beyond its threshold in as many batches in a
row as `AlarmsConfig.patience` says: a batch is a few episodes of other tasks than the one before it, and single batches
vary more than students do. A batch that lacks a figure ends its row; a step without a batch of its own says nothing. A
probe is of the same tasks every time and needs no patience. Success is compared over many batches (`training.decline`).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tutelage.stage_config import AlarmConfig, AlarmsConfig
from tutelage.training.decline import BATCHES, Decline

INVALID_GROWTH = 2.0
"""Growth of the share of invalid actions over the first batch's below which there is no alarm."""


@dataclass(frozen=True)
class Alarm:
    """Why a stage is not to go on as it did."""

    name: str
    why: str
    """In words, with the numbers."""
    action: str
    """``stop`` or ``restore``."""


class Watch:
    """Looks at the figures of one stage, step by step.

    Args:
        settings: thresholds and actions.
        window: batches over which success is compared at least; enough for every family to have its turn.
    """

    def __init__(self, settings: AlarmsConfig, window: int = BATCHES) -> None:
        self._settings = settings
        self._decline = Decline(window)
        self._first: dict[str, float] = {}
        """Figures when they were first seen; what is relative is relative to them."""
        self._streaks: dict[str, int] = {}
        self.suspects: dict[str, str] = {}
        """Name → reason of what the newest figures are beyond the threshold in, alarm or not; weights whose batch
        raised one are not kept as good ones."""

    def look(self, values: Mapping[str, float]) -> Alarm | None:
        """The alarm that the figures of a step raise: the first that stops, or else the first of all.

        Args:
            values: figures by name, as a stage reports them; those that a step does not have are not looked at.
        """
        self.suspects = {}
        raised: list[Alarm] = []
        for name, why in at_once(values):
            self.suspects[name] = why
            raised.append(Alarm(name, why, "stop"))
        fresh = "broken" in values
        seen = {**values, **_derived(values)}
        for name, (figure, beyond) in RULES.items():
            setting: AlarmConfig = getattr(self._settings, name)
            if setting.action == "off" or (not fresh and name != "probe"):
                continue
            value = seen.get(figure, math.nan)
            known = math.isfinite(value)
            why = beyond(value, setting.threshold, self._first.setdefault(figure, value)) if known else ""
            raised += self._noted(name, why, setting)
        if fresh and self._settings.success.action != "off":
            raised += self._noted("success", self._lost(values), self._settings.success)
        return min(raised, key=lambda alarm: alarm.action != "stop", default=None)

    def _noted(self, name: str, why: str, setting: AlarmConfig) -> list[Alarm]:
        """The alarm if `why` has been the case for long enough."""
        self._streaks[name] = self._streaks.get(name, 0) + 1 if why else 0
        if why:
            self.suspects[name] = why
        patience = 1 if name == "probe" else self._settings.patience
        return [Alarm(name, why, setting.action)] if self._streaks[name] >= patience else []

    def _lost(self, values: Mapping[str, float]) -> str:
        """What is wrong with the success without memory; where that was not played nothing is known."""
        if not values.get("tasks"):
            return ""
        self._decline.saw(values["success"], values["tasks"])
        threshold = self._settings.success.threshold
        if self._decline.doubtful(threshold):  # not yet an alarm; but these weights may be where it began
            self.suspects["success"] = f"{values['success']:.0%} of the episodes are solved, far fewer than before"
        return self._decline.lost(threshold)

    def calm(self) -> None:
        """Forget how long anything has been beyond its threshold, as other weights are looked at now."""
        self._streaks = {}
        self._decline.calm()

    def state(self) -> dict[str, Any]:
        """What `load` takes; JSON."""
        return {"first": dict(self._first), "streaks": dict(self._streaks), "decline": self._decline.state()}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on as when `state` was taken."""
        self._first, self._streaks = dict(state["first"]), dict(state["streaks"])
        self._decline.load(state["decline"])


def at_once(values: Mapping[str, float]) -> list[tuple[str, str]]:
    """Name and reason of what ends a stage without further looking; at most one."""
    found = []
    for name in ("loss", "grad_norm"):
        if not math.isfinite(values.get(name, 0.0)):
            found.append(("loss_not_finite", f"{name} is {values[name]}"))
    if values.get("broken", 0.0) == 1:
        found.append(("all_episodes_broken", "every episode of the batch broke"))
    return found[:1]


def _derived(values: Mapping[str, float]) -> dict[str, float]:
    turns = values.get("turns", 0.0)
    return {"tokens_per_turn": values["sampled_tokens"] / turns} if turns and "sampled_tokens" in values else {}


def _length(value: float, threshold: float, first: float) -> str:
    if first and (value > threshold * first or value < first / threshold):
        return (
            f"{value:.3g} sampled tokens per turn, after {first:.3g} in the first batch, are beyond {threshold:g} times"
        )
    return ""


def _entropy(value: float, threshold: float, first: float) -> str:
    if value < threshold * first:
        return f"entropy {value:.2g} in failed episodes is below {threshold:g} of the first batch's {first:.2g}"
    return ""


def _kl(value: float, threshold: float, _: float) -> str:
    return f"KL {value:.3g} to the starting weights is above {threshold:g}" if value > threshold else ""


def _gap(value: float, threshold: float, _: float) -> str:
    return f"gap {value:.3g} to the self-teacher is above {threshold:g}" if value > threshold else ""


def _invalid(value: float, threshold: float, first: float) -> str:
    if value >= max(threshold, INVALID_GROWTH * first):
        return f"{value:.0%} of the actions are invalid, after {first:.0%} in the first batch"
    return ""


def _probe(value: float, threshold: float, first: float) -> str:
    if first - value > threshold:
        return f"{value:.0%} of the probe tasks are solved, after {first:.0%} at the start"
    return ""


RULES: dict[str, tuple[str, Callable[[float, float, float], str]]] = {
    "length": ("tokens_per_turn", _length),
    "entropy": ("entropy_failed", _entropy),
    "kl": ("kl", _kl),
    "gap": ("gap", _gap),
    "invalid": ("invalid_rate", _invalid),
    "probe": ("probe", _probe),
}
"""Setting → the figure that is looked at, and (value, threshold, first value) → what is wrong, or nothing."""
ALARMS = (*RULES, "success")
"""All that have a setting of their own."""
