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
    left, right, top = 24 + 9 * max(len(bar.label) for bar in bars), 64, 8  # capitals are that wide
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
        parts.append(_text(left - 6, y(value) + 4, _number(value), "tick", "end"))
    for step, anchor in {first: "start", last: "end"}.items():
        parts.append(_text(x(step), height - 5, f"{step:g}", "tick", anchor))
    path = " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in points)
    parts.append(Markup('<polyline class="curve" points="{}"/>').format(path))
    if len(points) <= 30:
        dot = Markup('<circle class="dot" cx="{:.1f}" cy="{:.1f}" r="2"><title>{:g}: {:.4g}</title></circle>')
        parts += [dot.format(x(step), y(value), step, value) for step, value in points]
    return _svg(width, height, parts, name)


def lines(
    series: Sequence[tuple[str, Sequence[tuple[float, float]]]], *, name: str, unit: str = "", axis: str = ""
) -> Markup:
    """Several lines of (x, y) points in one chart, each with its name at the right; an empty one is only named.

    The CSS class of a line is ``series series-N``, N counting from 0.
    """
    width, height, left, right, top, bottom = 640, 300, 64, 200, 28, 40
    finite = [[(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)] for _, points in series]
    every = [point for points in finite for point in points]
    if not every:
        return _svg(width, 60, [_text(8, 14, name, "name", "start"), _text(8, 40, "no values", "tick", "start")], name)
    first, last = min(x for x, _ in every), max(x for x, _ in every)
    least, most = min(y for _, y in every), max(y for _, y in every)

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - first) / (last - first) if last > first else 0.5
        up = (y - least) / (most - least) if most > least else 0.5
        return left + (width - left - right) * across, height - bottom - (height - top - bottom) * up

    parts = [_text(left, 14, name, "name", "start"), _text(width - right, height - 8, axis, "tick", "end")]
    for value in sorted({least, (least + most) / 2, most}):
        y = place(first, value)[1]
        parts.append(_line(left, y, width - right, y, "grid"))
        parts.append(_text(left - 6, y + 4, f"{_number(value)}{unit}", "tick", "end"))
    for value, anchor in {first: "start", last: "end"}.items():
        parts.append(_text(place(value, least)[0], height - 24, f"{value:.4g}", "tick", anchor))
    for number, ((label, _), points) in enumerate(zip(series, finite, strict=True)):
        at = [place(x, y) for x, y in sorted(points)]
        marks = Markup("").join(Markup('<circle cx="{:.1f}" cy="{:.1f}" r="2.5"/>').format(*point) for point in at)
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in at)
        y = top + 18 * number
        drawn = Markup('<polyline points="{}"/>').format(path) + marks
        drawn += _line(width - right + 14, y, width - right + 34, y, "key")
        parts.append(Markup('<g class="series series-{}">').format(number) + drawn + Markup("</g>"))
        parts.append(_text(width - right + 40, y + 4, label, "tick", "start"))
    return _svg(width, height, parts, name)


def _svg(width: float, height: float, parts: Sequence[Markup], label: str) -> Markup:
    head = Markup('<svg viewBox="0 0 {:g} {:g}" width="{:g}" height="{:g}" role="img" aria-label="{}">')
    return head.format(width, height, width, height, label) + Markup("").join(parts) + Markup("</svg>")


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    return Markup('<line class="{}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>').format(kind, x1, y1, x2, y2)


def _text(x: float, y: float, text: str, kind: str, anchor: str) -> Markup:
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(kind, x, y, anchor, text)


def _number(value: float) -> str:
    """Three digits, but thousands in full: 2,817 and not 2.82e+03."""
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e7 else f"{value:.3g}"


def _ticks(low: float, high: float) -> list[float]:
    step = next(step for step in (10, 20, 25, 50, 100) if (high - low) / step <= 10)
    return [float(tick) for tick in range(math.ceil(low / step) * step, math.floor(high) + 1, step)]
