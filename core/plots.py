"""Charts as inline SVG: no files, no scripts, colours by CSS classes so that they follow light and dark."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

WIDTH = 860
ROW = 28


@dataclass(frozen=True)
class Bar:
    """A value with its interval; all three in the chart's unit."""

    label: str
    value: float
    low: float
    high: float
    group: str = ""
    """CSS class suffix that colours the row, e.g. ``off`` or ``on``."""


def intervals(bars: Sequence[Bar], *, low: float, high: float, unit: str, name: str) -> Markup:
    """One row per bar: a dot at the value with a line over the interval, on an axis from `low` to `high`."""
    left, right, top = 24 + 7 * max(len(bar.label) for bar in bars), 64, 8
    bottom = top + ROW * len(bars)

    def x(value: float) -> float:
        return left + (WIDTH - left - right) * (min(max(value, low), high) - low) / (high - low)

    parts = []
    for tick in _ticks(low, high):
        parts.append(_line(x(tick), top, x(tick), bottom, "zero" if tick == 0 else "grid"))
        parts.append(_text(x(tick), bottom + 16, f"{tick:g}", "tick", "middle"))
    for index, bar in enumerate(bars):
        y = top + ROW * (index + 0.5)
        title = f"{bar.label}: {bar.value:.1f}{unit} ({bar.low:.1f} to {bar.high:.1f})"
        parts.append(
            Markup('<g class="arm {}"><title>{}</title>').format(f"arm-{bar.group}", title)
            + _line(x(bar.low), y, x(bar.high), y, "whisker")
            + _line(x(bar.low), y - 5, x(bar.low), y + 5, "whisker")
            + _line(x(bar.high), y - 5, x(bar.high), y + 5, "whisker")
            + Markup('<circle cx="{:.1f}" cy="{:.1f}" r="5"/></g>').format(x(bar.value), y)
        )
        parts.append(_text(left - 12, y + 4, bar.label, "label", "end"))
        parts.append(_text(WIDTH - right + 12, y + 4, f"{bar.value:.0f}{unit}", "label", "start"))
    return _svg(WIDTH, bottom + 24, parts, name)


def curve(points: Sequence[tuple[float, float]], name: str) -> Markup:
    """A small line chart of (step, value), sorted by step, with the value axis labelled at both ends."""
    width, height, left, right, top, bottom = 246, 120, 60, 8, 24, 20
    points = [(step, value) for step, value in points if math.isfinite(value)]
    if not points:
        nothing = [_text(8, 14, name, "name", "start"), _text(8, 60, "no values", "tick", "start")]
        return _svg(width, height, nothing, name)
    steps, values = [step for step, _ in points], [value for _, value in points]
    first, last, least, most = min(steps), max(steps), min(values), max(values)

    def x(step: float) -> float:
        return left + (width - left - right) * ((step - first) / (last - first) if last > first else 0.5)

    def y(value: float) -> float:
        return height - bottom - (height - top - bottom) * ((value - least) / (most - least) if most > least else 0.5)

    parts = [_text(left, 14, name, "name", "start")]
    for value in sorted({least, most}):
        parts.append(_line(left, y(value), width - right, y(value), "grid"))
        parts.append(_text(left - 6, y(value) + 4, f"{value:.3g}", "tick", "end"))
    for step, anchor in {first: "start", last: "end"}.items():
        parts.append(_text(x(step), height - 5, f"{step:g}", "tick", anchor))
    path = " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in points)
    parts.append(Markup('<polyline class="curve" points="{}"/>').format(path))
    if len(points) <= 30:
        dot = Markup('<circle class="dot" cx="{:.1f}" cy="{:.1f}" r="2"><title>{:g}: {:.4g}</title></circle>')
        parts += [dot.format(x(step), y(value), step, value) for step, value in points]
    return _svg(width, height, parts, name)


def _svg(width: float, height: float, parts: Sequence[Markup], label: str) -> Markup:
    head = Markup('<svg viewBox="0 0 {:g} {:g}" width="{:g}" height="{:g}" role="img" aria-label="{}">')
    return head.format(width, height, width, height, label) + Markup("").join(parts) + Markup("</svg>")


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    return Markup('<line class="{}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>').format(kind, x1, y1, x2, y2)


def _text(x: float, y: float, text: str, kind: str, anchor: str) -> Markup:
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(kind, x, y, anchor, text)


def _ticks(low: float, high: float) -> list[float]:
    step = next(step for step in (10, 20, 25, 50, 100) if (high - low) / step <= 10)
    return [float(tick) for tick in range(math.ceil(low / step) * step, math.floor(high) + 1, step)]
