"""What a cycle or an annotation will cost, said before it starts.

Calls follow from the counts in the config; steps per episode, tokens per call and the share of episodes that succeed
are this workspace's own where it has any, else the assumptions below. Retries, repairs of structured answers and
replacements of refused designs are left out. Prices are LiteLLM's; a model that it has no price for costs "unknown".
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from math import ceil
from typing import Literal

from tutelage.agents.judge import judge_label
from tutelage.agents.personas import BATCH
from tutelage.completion import is_embedded, litellm
from tutelage.cycle import DEMONSTRATIONS, EXPERIENCE_ARMS, EXPLORED, MISTAKEN, ORACLE
from tutelage.designs import CUTS, DESIGNED
from tutelage.giving_up import unfinished
from tutelage.judging import CALIBRATION
from tutelage.llm import LLM
from tutelage.record import Record
from tutelage.stage_config import RolloutStageConfig
from tutelage.types import BROKEN, Frozen, Trajectory
from tutelage.usage import BY_CYCLE, TOTAL, Usage
from tutelage.workspace import Workspace

Work = Literal["run", "collect", "distill", "extract", "train", "annotate"]

TOKENS = {
    "teacher": (1200, 80),
    "judge": (1500, 120),
    "distiller": (2500, 300),
    "persona": (600, 300),
    "designer": (2500, 400),
    "corrector": (1500, 100),
    "merger": (700, 60),
}
"""Prompt and completion tokens of a call by role, where this workspace has none to count."""
SUCCESS = {DEMONSTRATIONS: 0.8, ORACLE: 1.0, MISTAKEN: 0.5, EXPLORED: 0.2, DESIGNED: 0.6}
"""Share of an arm's episodes that succeed, where this workspace has none to count."""
LATER_ROUNDS = 0.5
"""Share of stickers that need each round after the first."""
SAMPLE = 200
"""Episodes of an arm that averages are taken from, at most."""


class Line(Frozen):
    """What one role will need."""

    role: str
    model: str
    calls: int
    prompt_tokens: int
    completion_tokens: int
    dollars: float | None
    """None if nobody knows the price, as with a local server."""
    scripted: bool
    """Answered in this process by rule, for nothing."""


class Forecast(Frozen):
    """What a piece of work will need."""

    work: str
    lines: tuple[Line, ...]
    assumptions: tuple[str, ...]
    """What it rests on, a sentence each."""

    @property
    def paid(self) -> tuple[Line, ...]:
        """The lines of models that are asked over a network."""
        return tuple(line for line in self.lines if not line.scripted)

    @property
    def total(self) -> Usage:
        """Of all lines; `unpriced` counts the calls without a known price."""
        return Usage(
            calls=sum(line.calls for line in self.lines),
            prompt_tokens=sum(line.prompt_tokens for line in self.lines),
            completion_tokens=sum(line.completion_tokens for line in self.lines),
            dollars=sum(line.dollars or 0.0 for line in self.lines),
            unpriced=sum(line.calls for line in self.lines if line.dollars is None),
        )


def forecast(workspace: Workspace, work: Work, tasks: int = 0, *, cycles: int = 1) -> Forecast:
    """What `cycles` of a kind, or an annotation of so many `tasks`, will need. Of a cycle that was begun only the rest
    counts; those after the first one find nothing left to distil and the judge measured."""
    plan = _planned(_Plan(workspace), work, tasks)
    done = Counter[str]() if work == "annotate" else _done(workspace.record)
    calls = {role: max(0, ceil(count) - done[role]) for role, count in plan.calls.items()}
    if cycles > 1:
        for role, count in _planned(_Plan(workspace, later=True), work, tasks).calls.items():
            calls[role] = calls.get(role, 0) + (cycles - 1) * ceil(count)
    lines = tuple(_line(workspace, role, count) for role, count in calls.items() if count)
    asked = [line.role for line in lines if not line.scripted]
    return Forecast(work=work, lines=lines, assumptions=(*plan.assumptions(), *_of_tokens(workspace, asked)))


class _Plan:
    """Adds up calls by role, step by step of the work.

    Attributes:
        later: whether another cycle comes before this one and leaves nothing of what the record holds now.
    """

    def __init__(self, workspace: Workspace, *, later: bool = False) -> None:
        self.config, self.record, self.later = workspace.config, workspace.record, later
        self.suite, self.taught = workspace.suite, workspace.taught
        self.calls: dict[str, float] = defaultdict(float)
        self.unjudged = 0
        """Episodes without a verdict when judging begins."""
        self.fresh: dict[tuple[str, bool], float] = {}
        """Episodes to distil, by family and whether they succeeded."""
        self.episodes = {arm: self.record.trajectories(arm=arm, limit=SAMPLE) for arm in SUCCESS}

    # -- the parts of the work -------------------------------------------------------------------

    def collect(self) -> None:
        plan = self.config.collect
        arms = {
            DEMONSTRATIONS: (plan.demonstrations, self.taught.names),
            ORACLE: (plan.oracle, self.suite.with_gold),
            MISTAKEN: (plan.mistaken, self.taught.names),
            EXPLORED: (plan.explored, self.suite.names),
        }
        for arm, (count, names) in arms.items():
            count *= len(self.suite.families)
            families = self.suite.only(environments=names).families if names else ()
            share = count * len(names) // len(self.suite.names)
            self.unjudged += share
            self._add_fresh(arm, share, families)
            if arm in (DEMONSTRATIONS, MISTAKEN):
                self.calls["teacher"] += share * self._steps()
        if plan.designed:
            self.annotate(plan.designed)
            self._add_fresh(DESIGNED, plan.designed, [f"{name}/{DESIGNED}" for name in self.taught.names])
        if plan.explored:
            self._correct(plan.corrected)

    def learn(self) -> None:
        known = {verdict.trajectory for verdict in self.record.verdicts()}
        seen = {item for body in self.record.items("extraction").values() for item in body["trajectories"]}
        arms = () if self.later else EXPERIENCE_ARMS
        waiting = [item for arm in arms for item in self.record.trajectories(arm=arm)]
        planned = {item.id for cycle in unfinished(self.record) for item in self.record.trajectories(cycle=cycle)}
        for item in waiting:
            if item.ending not in BROKEN and item.id not in planned:
                self.unjudged += item.id not in known
                cell = (item.task.kind, item.success)
                self.fresh[cell] = self.fresh.get(cell, 0) + (item.id not in seen)
        self.calls["judge"] += self.unjudged * self.config.teacher.votes
        cap, rounds = self.config.memory.distil_per_family, self.config.teacher.sticker_rounds
        good, bad = (sum(min(cap, n) for (_, ok), n in self.fresh.items() if ok == want) for want in (True, False))
        checked = 2 * (1 + LATER_ROUNDS * (rounds - 1)) if rounds else 0
        before = self._calls_per_distilled()
        self.calls["distiller"] += (good + bad) * before if before else good * (1 + checked) + bad
        if not is_embedded(self.config.teacher.model_for("merger")):
            self.calls["merger"] += self.config.memory.asked
        guarded = 2 * self.config.collect.guarded * len(self.suite.families)
        self.calls["teacher"] += guarded * len(self.taught.names) // len(self.suite.names) * self._steps()

    def train(self) -> None:
        for stage in self.config.stages:
            if isinstance(stage, RolloutStageConfig) and getattr(stage, "corrections", False):
                self._correct(stage.steps * stage.batch_size)

    def annotate(self, tasks: int) -> None:
        names, config, teacher = self.taught.names, self.config.annotate, self.config.teacher
        if not names:
            return
        free = [part for part in self.taught.parts if part.environment.design_guide]
        for part in free:
            share = tasks // len(names) + (names.index(part.name) < tasks % len(names))
            explorations = ceil(share / (CUTS * config.per_exploration))
            self.calls["persona"] += ceil(config.personas / BATCH) if share else 0
            self.calls["teacher"] += explorations * config.explore_steps
            self.calls["designer"] += explorations * CUTS
        thought = teacher.first_thought and not is_embedded(teacher.model)
        self.calls["teacher"] += tasks * (self._steps() + thought)
        label = judge_label(LLM(teacher.model_for("judge"), role="judge"), teacher.votes)
        measured = self.later or (self.record.get(CALIBRATION, label) or {"n": 0})["n"] > 0
        needed = free and not (config.trust_judge or measured or is_embedded(teacher.model_for("designer")))
        self.calls["judge"] += (tasks + config.calibrate * bool(needed)) * teacher.votes

    def _correct(self, states: int) -> None:
        self.calls["teacher"] += states
        self.calls["corrector"] += states

    # -- averages --------------------------------------------------------------------------------

    def assumptions(self) -> Iterable[str]:
        acted = len(self._acted())
        yield (
            f"{self._steps():.1f} steps per episode of the teacher, "
            + (f"as in {acted} of its episodes here" if acted else "half of act.max_steps, for want of episodes")
        )
        if self.calls["merger"]:
            yield "the merger is asked about as many pairs as it may be (memory.asked)"
        yield "retries, repairs of answers and replacements of refused designs are not counted"

    def _acted(self) -> list[Trajectory]:
        acted = [item for arm in (DEMONSTRATIONS, MISTAKEN, DESIGNED) for item in self.episodes[arm]]
        return [item for item in acted if item.ending not in BROKEN]

    def _steps(self) -> float:
        acted = self._acted()
        return sum(len(item.steps) for item in acted) / len(acted) if acted else self.config.act.max_steps / 2

    def _calls_per_distilled(self) -> float:
        """Of earlier cycles, checks of stickers included; 0 if there are none."""
        used, calls, distilled = self.record.items(BY_CYCLE), 0, 0
        for cycle, body in self.record.items("extraction").items():
            if (mine := used.get(f"{cycle}/distiller")) is not None:
                calls += mine["calls"] + mine["replayed"]
                distilled += dict(body["funnel"])["distilled"]
        return calls / distilled if distilled else 0.0

    def _add_fresh(self, arm: str, count: int, families: Iterable[str]) -> None:
        known, families = self.episodes[arm], list(families)
        success = sum(item.success for item in known) / len(known) if known else SUCCESS[arm]
        for family in families:
            for good, share in ((True, success), (False, 1 - success)):
                self.fresh[family, good] = self.fresh.get((family, good), 0) + count * share / len(families)


def _planned(plan: _Plan, work: Work, tasks: int) -> _Plan:
    if work == "annotate":
        plan.annotate(tasks or plan.config.annotate.tasks)
        return plan
    if work in ("run", "collect"):
        plan.collect()
    if work == "collect":
        return plan
    if work != "train":
        plan.learn()
    if work != "extract":
        plan.train()
    return plan


def _done(record: Record) -> Counter[str]:
    """Calls by role that the unfinished cycle has made already."""
    calls: Counter[str] = Counter()
    begun = unfinished(record)
    for key, body in record.items(BY_CYCLE).items():
        cycle, _, role = key.partition("/")
        if int(cycle) in begun:
            calls[role] += body["calls"] + body["replayed"]
    return calls


def _line(workspace: Workspace, role: str, calls: int) -> Line:
    model = workspace.config.teacher.model_for(role)
    prompt, completion = (round(calls * tokens) for tokens in _tokens(workspace, role))
    scripted = is_embedded(model)
    return Line(
        role=role,
        model=model,
        calls=calls,
        prompt_tokens=prompt,
        completion_tokens=completion,
        dollars=0.0 if scripted else price(model, prompt, completion),
        scripted=scripted,
    )


def price(model: str, prompt_tokens: int, completion_tokens: int) -> float | None:
    """Dollars by LiteLLM's bundled price list; None if the model is not on it."""
    try:
        parts = litellm().cost_per_token(model=model, prompt_tokens=prompt_tokens, completion_tokens=completion_tokens)
    except Exception:  # what LiteLLM raises for a model without a known price differs by version
        return None
    return float(sum(parts))


def _tokens(workspace: Workspace, role: str) -> tuple[float, float]:
    """Prompt and completion tokens per call. A scripted expert says less than a model would: its prompts count, its
    answers do not."""
    assumed = TOKENS.get(role, TOKENS["teacher"])
    body = workspace.record.get(TOTAL, role)
    used = Usage.model_validate(body) if body else Usage()
    if not used.calls or not used.prompt_tokens:
        return assumed
    by_model = used.dollars or used.unpriced or is_embedded(workspace.config.teacher.model_for(role))
    return used.prompt_tokens / used.calls, used.completion_tokens / used.calls if by_model else assumed[1]


def _of_tokens(workspace: Workspace, roles: Iterable[str]) -> list[str]:
    """A sentence per role that a model will be asked in."""
    told = []
    for role in sorted(roles):
        prompt, completion = _tokens(workspace, role)
        here = (prompt, completion) != TOKENS.get(role, TOKENS["teacher"])
        why = "after what calls took here" if here else "assumed, for want of calls"
        told.append(f"{prompt:,.0f} + {completion:,.0f} tokens per call of the {role}, {why}")
    return told
