"""From cells to rates, paired gains and a verdict, and these as tables.

Two intervals, for two questions. `pairs` is the paired bootstrap of `tutelage.stats` over the tasks of all seeds: how
sure is it that these very students differ on such tasks. `seeds` is Student's t over the seeds' gains: how sure is it
that training again would show the same; seeds are the clusters, each an independent run. An arm counts as better only
if both are above 0, and as worse only if both are below (with one seed, or seeds that all gained the same, there is
only the first). Nothing is corrected for the number of arms.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from cells import BASE, SEEN, SFT, UNSEEN, Cell
from rich.table import Table
from scipy.stats import t

from tutelage.measures import Comparison, Rate
from tutelage.results import interval, percent, points
from tutelage.stats import compare, rate


@dataclass(frozen=True)
class Gain:
    """One arm against another, over all seeds that have both."""

    pairs: Comparison
    by_seed: tuple[float, ...]
    seeds: tuple[float, float] | None
    """Interval over seeds; None if they do not vary."""

    @property
    def better(self) -> bool:
        return self.pairs.low > 0 and (self.seeds is None or self.seeds[0] > 0)

    @property
    def worse(self) -> bool:
        return self.pairs.high < 0 and (self.seeds is None or self.seeds[1] < 0)

    def texts(self) -> list[str]:
        """The gain with its interval over pairs, that of each seed, and the interval over seeds; in points."""
        over = f"{100 * self.seeds[0]:+.0f} to {100 * self.seeds[1]:+.0f}" if self.seeds else ""
        return [points(self.pairs), " ".join(f"{100 * gain:+.0f}" for gain in self.by_seed), over]


def of(cells: Sequence[Cell], arm: str, world: str) -> list[Cell]:
    """The cells of an arm, by seed."""
    found = [cell for cell in cells if cell["arm"] == arm and cell["world"] == world]
    return sorted(found, key=lambda cell: int(cell["seed"]))


def rate_of(cells: Sequence[Cell], what: str, confidence: float) -> Rate:
    """Success over all held-out tasks of these cells."""
    outcomes = [won for cell in cells for won in cell["outcomes"][what].values()]
    return rate(sum(outcomes), len(outcomes), confidence)


def gain(old: Sequence[Cell], new: Sequence[Cell], what: str, confidence: float) -> Gain:
    """`new` against `old` on the tasks that both count, seed by seed."""
    before = {cell["seed"]: cell["outcomes"][what] for cell in old}
    each = []
    for cell in new:
        mine, its = cell["outcomes"][what], before.get(cell["seed"], {})
        if both := [(its[task], won) for task, won in mine.items() if task in its]:
            each.append(both)
    pairs = [pair for some in each for pair in some]
    found = compare([pair[0] for pair in pairs], [pair[1] for pair in pairs], confidence=confidence)
    gains = tuple(fmean(int(after) - int(then) for then, after in some) for some in each)
    return Gain(found, gains, over_seeds(gains, confidence))


def over_seeds(gains: Sequence[float], confidence: float) -> tuple[float, float] | None:
    """Student's t interval of the mean of independent runs, within −1 and 1; none of runs that are all the same, which
    would be a single point."""
    if len(set(gains)) < 2:
        return None
    reach = float(t.ppf((1 + confidence) / 2, len(gains) - 1)) * stdev(gains) / math.sqrt(len(gains))
    return max(fmean(gains) - reach, -1.0), min(fmean(gains) + reach, 1.0)


def tables(cells: Sequence[Cell], arms: Sequence[str], control: str, confidence: float) -> list[Table]:
    """For each world what each student took and how it did, and the paired gains."""
    found = []
    for world in dict.fromkeys(cell["world"] for cell in cells):
        title = f"{world}: success on the validation split, memory off"
        did = Table("student", "steps", "seconds", "tokens sampled", "tokens with loss", SEEN, UNSEEN, title=title)
        gains = Table("student", "tasks", title=f"{world}: paired gains in points")
        for old in (SFT, control):
            for column in (f"over {old}", "by seed", "over seeds"):
                gains.add_column(column)
        for arm in (BASE, SFT, *arms):
            mine = of(cells, arm, world)
            if not mine:
                continue
            rates = (rate_of(mine, what, confidence) for what in (SEEN, UNSEEN))
            texts = (f"{percent(r)} ({interval(r)}), n = {r.episodes}" if r.episodes else "" for r in rates)
            took = (f"{fmean(cell[kind] for cell in mine):,.0f}" for kind in ("steps", "seconds", "sampled", "trained"))
            did.add_row(arm, *took, *texts)
            for what in (SEEN, UNSEEN) if arm in arms else ():
                others = [of(cells, old, world) if old != arm else [] for old in (SFT, control)]
                found_gains = [gain(theirs, mine, what, confidence) if theirs else None for theirs in others]
                if any(item and item.pairs.pairs for item in found_gains):
                    gains.add_row(
                        arm, what, *(text for item in found_gains for text in (item.texts() if item else [""] * 3))
                    )
        found += [did, gains] if gains.row_count else [did]
    return found


def verdicts(cells: Sequence[Cell], arms: Sequence[str], control: str, confidence: float) -> list[str]:
    """What may be said of each arm, and which recipe follows; on the tasks of trained families."""
    lines = []
    for world in dict.fromkeys(cell["world"] for cell in cells):
        theirs, better = of(cells, control, world), {}
        for arm in arms:
            mine = of(cells, arm, world)
            if arm == control or not mine or not theirs:
                continue
            found = gain(theirs, mine, SEEN, confidence)
            if found.better:
                better[arm] = found.pairs.gain
            said = "better than" if found.better else "worse than" if found.worse else "not shown to differ from"
            pairs, by_seed, over = found.texts()
            seeds = f"; by seed {by_seed}, over seeds {over}" if over else ""
            lines.append(f"{world}: {arm} is {said} {control}: {pairs} points{seeds}")
        if theirs:
            chosen = max(better, key=lambda arm: better[arm], default=control)
            lines.append(f"{world}: recipe by validation: {chosen}")
        lines += [f"{world}: seed {cell['seed']}: {cell['arm']}: {text}" for cell in cells for text in cell["alarms"]
                  if cell["world"] == world]  # fmt: skip
    return lines
