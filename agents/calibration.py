"""How far a judge can be believed: its verdicts against programmatic checks.

The episodes are real ones of environments that check themselves: a third by the scripted expert, the others by the same
with injected mistakes, many of which it puts right again. So about half of them fail, and a judge that always says yes,
or always no, is found out.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

from tutelage.agents.graph import run_episodes
from tutelage.agents.llm_policy import LLMPolicy
from tutelage.agents.mistakes import Mistaken
from tutelage.agents.per_environment import PerEnvironment
from tutelage.agents.review import tells
from tutelage.config import ActConfig
from tutelage.environments.base import Environment
from tutelage.llm import LLM
from tutelage.measures import Rate
from tutelage.stats import rate
from tutelage.types import Frozen, Policy, Task, Trajectory, Verdict

MISTAKES = 0.8
"""Probability that a step of a mistaken episode is corrupted."""
ENOUGH = 5
"""Episodes that a judge must have called successful at least before its precision says anything."""
EVERY = 3
"""Every how-manieth episode of a family is without injected mistakes."""


class Calibration(Frozen):
    """What a judge's word was worth, with 95 % Wilson intervals."""

    judge: str
    n: int
    """Episodes that it judged; those about which it could not tell do not count."""
    positives: int
    """Episodes among them that the programmatic check accepted."""
    precision: Rate
    """Share of accepted episodes among those it called successful."""
    recall: Rate
    """Share of those it called successful among the accepted ones."""
    agreement: Rate
    tp: int
    fp: int
    fn: int
    tn: int
    cannot_tell: int = 0
    unanswered: int = 0
    """Episodes for which there was no usable answer."""
    by_environment: dict[str, "Calibration"] = {}

    def fit(self, min_precision: float) -> bool:
        """Whether it may filter; what says yes less than `ENOUGH` times has no precision to speak of and is not fit."""
        return self.precision.episodes >= ENOUGH and self.precision.rate >= min_precision

    def why(self, min_precision: float) -> str:
        """One line on `fit`."""
        if not self.n:
            lost = f"it could not tell about {self.cannot_tell}, and gave no usable answer to {self.unanswered}"
            return f"{self.judge} judged no episode ({lost}), so its precision is not known"
        called = self.precision.episodes
        if called < ENOUGH:
            said = f"{self.judge} called {called or 'none'} of {self.n} episodes successful"
            return f"{said}, too few to know its precision; {ENOUGH} are needed"
        sign = "at least" if self.fit(min_precision) else "below"
        found = self.precision
        return (
            f"precision of {self.judge} is {found.rate:.2f} ({found.low:.2f} to {found.high:.2f}, "
            f"{found.successes} of {found.episodes}), {sign} the {min_precision:.2f} asked for"
        )


def calibrate(cases: Sequence[tuple[Verdict, bool]], judge: str = "", *, unanswered: int = 0) -> Calibration:
    """Compare verdicts with what the programmatic check said.

    Args:
        judge: label; by default that of the verdicts.

    Raises:
        ValueError: the verdicts are by several judges.
    """
    judges = {verdict.judge for verdict, _ in cases} | ({judge} if judge else set())
    if len(judges) > 1:
        raise ValueError(f"one judge is calibrated at a time, not {', '.join(sorted(judges))}")
    told = [(verdict.successful, solved) for verdict, solved in cases if tells(verdict)]
    counts = Counter(told)
    tp, fp, fn, tn = (counts[pair] for pair in ((True, True), (True, False), (False, True), (False, False)))
    return Calibration(
        judge="".join(judges),
        n=len(told),
        positives=tp + fn,
        precision=rate(tp, tp + fp),
        recall=rate(tp, tp + fn),
        agreement=rate(tp + tn, len(told)),
        tp=tp,
        fp=fp,
        fn=fn,
        tn=tn,
        cannot_tell=len(cases) - len(told),
        unanswered=unanswered,
    )


def calibration_episodes(
    tasks: Sequence[Task],
    make_environment: Callable[[str], Environment],
    *,
    act: ActConfig,
    seed: int = 0,
    on_finished: Callable[[Trajectory], None] | None = None,
    known: frozenset[str] = frozenset(),
) -> list[Trajectory]:
    """Episodes by the scripted expert for a third of the tasks, and by the same with injected mistakes for the others.

    Args:
        tasks: of environments with a scripted expert; each at most once.
        seed: with a task it determines the mistakes.
        on_finished: is given each episode as it ends.
        known: ids of tasks that are passed over; who plays the others does not depend on them.

    Returns:
        Those by the expert, then those with mistakes.
    """
    names = dict.fromkeys(task.environment for task in tasks)
    expert = PerEnvironment({name: LLMPolicy(LLM(f"expert/{name}", role="calibration")) for name in names})
    shares: tuple[list[Task], list[Task]] = ([], [])
    for task, mistaken in zip(tasks, _mistaken(tasks), strict=True):
        if task.id not in known:
            shares[mistaken].append(task)
    policies: tuple[Policy, Policy] = (expert, Mistaken(expert, MISTAKES, seed))

    def finished(_: int, trajectory: Trajectory) -> None:
        if on_finished is not None:
            on_finished(trajectory)

    found: list[Trajectory] = []
    for share, policy in zip(shares, policies, strict=True):
        if share:
            found += run_episodes(share, policy, make_environment, act=act, seed=seed, on_finished=finished)
    return found


def _mistaken(tasks: Sequence[Task]) -> list[bool]:
    """Which tasks are for mistakes: all but every third of a family, each family beginning elsewhere."""
    families: defaultdict[str, list[str]] = defaultdict(list)
    drawn: Counter[str] = Counter()
    found = []
    for task in tasks:
        mine = families[task.environment]
        if task.family not in mine:
            mine.append(task.family)
        found.append((mine.index(task.family) + drawn[task.kind]) % EVERY > 0)
        drawn[task.kind] += 1
    return found
