"""The plots of a run, as one HTML page that loads nothing."""

from collections import defaultdict
from collections.abc import Sequence
from importlib.resources import files
from statistics import fmean

from cells import BASE, SEEN, SFT, UNSEEN, Cell
from figures import of, rate_of
from markupsafe import Markup, escape

from tutelage.plots import Bar, intervals, lines

Point = tuple[float, float]
COLOURS = ("#7a7f87", "#4052c8", "#0b8276", "#c02f3a", "#a05a00", "#8b3fb5", "#2f7fb8", "#5a7d1f")
CURVES = (
    ("success", "success of rollouts, of training tasks, sampled (mean of four steps)", 100.0, "%"),
    ("probe", "probe: success on fixed training tasks, greedy (stages that act)", 100.0, "%"),
    ("loss", "loss (of different kinds: to be compared with itself)", 1.0, ""),
    ("trained", "tokens that carried loss, in all", 1.0, ""),
    ("sampled", "tokens sampled in rollouts, in all", 1.0, ""),
)


def page(cells: Sequence[Cell], arms: Sequence[str], confidence: float, text: str) -> str:
    """Held-out success, and every curve over training time: a line per arm, the mean over its seeds."""
    parts = []
    for world in dict.fromkeys(cell["world"] for cell in cells):
        parts.append(Markup("<h2>{}</h2><div class='charts'>").format(world))
        for what in (SEEN, UNSEEN):
            bars = _bars(cells, arms, world, what, confidence)
            if bars:
                name = f"{world}, {what}: success on held-out validation tasks, memory off"
                chart = intervals(bars, low=0, high=100, unit=" %", name=name)
                parts.append(_figure(chart, name))
        gained = [(arm, _ends(cells, arm, world)) for arm in arms]
        parts.append(_figure(lines(gained, name="held-out success after training", unit="%", axis="seconds")))
        for figure, name, scale, unit in CURVES:
            series = [(arm, _curve(cells, arm, world, figure, scale)) for arm in arms]
            parts.append(_figure(lines(series, name=name, unit=unit, axis="training seconds")))
        parts.append(Markup("</div>"))
    style = (files("tutelage") / "templates" / "report.css").read_text() + _colours()
    style += "pre { white-space: pre; max-height: none }\n"  # a table is no text that may wrap
    body = Markup("").join(parts)
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'><title>learning</title>"
        f"<style>{style}</style></head><body><h1>What helps</h1><pre>{escape(text)}</pre>{body}</body></html>\n"
    )


def _colours() -> str:
    rules = [
        f"svg .series-{number} {{ stroke: {colour}; }} svg .series-{number} circle {{ fill: {colour}; }}"
        for number, colour in enumerate(COLOURS)
    ]
    return "svg .series { stroke-width: 2; } svg .series polyline { fill: none; } " + " ".join(rules)


def _figure(chart: Markup, caption: str = "") -> Markup:
    under = Markup("<figcaption>{}</figcaption>").format(caption) if caption else Markup("")
    kind = "large" if caption else ""
    return Markup("<figure class='{}'>{}{}</figure>").format(kind, under, chart)


def _bars(cells: Sequence[Cell], arms: Sequence[str], world: str, what: str, confidence: float) -> list[Bar]:
    bars = []
    for arm in (BASE, SFT, *arms):
        found = rate_of(of(cells, arm, world), what, confidence)
        if found.episodes:
            bars.append(Bar(arm, 100 * found.rate, 100 * found.low, 100 * found.high))
    return bars


def _ends(cells: Sequence[Cell], arm: str, world: str) -> list[Point]:
    """Held-out success before the arm's training and after it, over the seeds that have the arm."""
    after = of(cells, arm, world)
    seeds = {cell["seed"] for cell in after}
    before = [cell for cell in of(cells, SFT, world) if cell["seed"] in seeds]
    if not after:
        return []
    seconds = fmean(cell["seconds"] for cell in after)
    return [(x, 100 * rate_of(some, SEEN, 0.95).rate) for x, some in ((0.0, before), (seconds, after))]


def _curve(cells: Sequence[Cell], arm: str, world: str, figure: str, scale: float) -> list[Point]:
    """A figure by training time. Steps are paired by their number, as far as every seed got; what is a rate of a few
    episodes is a mean of four steps."""
    runs = [[(p["seconds"], p[figure]) for p in cell["curve"] if figure in p] for cell in of(cells, arm, world)]
    points: dict[int, list[Point]] = defaultdict(list)
    for run in runs:
        for number, point in enumerate(run):
            points[number].append(point)
    every = [some for some in points.values() if len(some) == len(runs)]
    mean = [(fmean(x for x, _ in some), scale * fmean(y for _, y in some)) for some in every]
    if figure != "success":
        return mean
    groups = [mean[first : first + 4] for first in range(0, len(mean), 4)]
    return [(fmean(x for x, _ in group), fmean(y for _, y in group)) for group in groups]
