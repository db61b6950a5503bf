"""Task design and annotation: persona → explore → design → annotate → judge → filter, as one LangGraph run.

After Agent-as-Annotators (A3, 2604.07776), with two departures: every freely designed task has a programmatic check
of its end, which the judge's verdict joins where a model wrote that check; and where an environment draws its own
goals, designing means choosing family and seed by what the student needs (`tutelage.curriculum`).

Every node finds out from the record what is missing, does it and writes it back, so that a killed or stopped run
goes on when it is started again under the same name.
"""

from collections.abc import Callable, Sequence
from contextvars import Context
from functools import cache, cached_property
from random import Random
from typing import Any, TypedDict

from langgraph.graph import END, START, StateGraph

from tutelage.agents.designer import propose_many
from tutelage.agents.explorer import exploration_goal
from tutelage.agents.extraction import judge_missing
from tutelage.agents.graph import run_episodes
from tutelage.agents.judge import judge_label
from tutelage.agents.personas import invent
from tutelage.agents.seeds import stable_seed
from tutelage.agents.views import PersonaView, designer_view
from tutelage.annotation_settings import same_settings
from tutelage.completion import AttemptFailed
from tutelage.config import ActConfig
from tutelage.curriculum import drawn_tasks
from tutelage.design_store import DesignStore, hint_of
from tutelage.designs import CUTS, DESIGNED, EXPLORED, Design, Persona
from tutelage.environments.base import Environment
from tutelage.environments.suite import Part
from tutelage.errors import BudgetSpent, JudgeUnfit, TutelageError
from tutelage.forecast import price
from tutelage.funnel import Funnel, funnel
from tutelage.judging import calibrate_judge
from tutelage.progress import Reporter
from tutelage.types import BROKEN, Policy, Split, Task, Trajectory, Verdict
from tutelage.workspace import Workspace

EXPLORATION = "exploration"
"""Arm of explorations; they feed nothing."""
ROUNDS = 3
"""How many times the explorations that should do there may be, to make up for refused designs."""
FIRST_BASE = 500_000
"""Place of the first start state among a family's train tasks, far from those that cycles use."""
SOMEBODY = Persona(name="Somebody", description="A person who uses what is here every day.")
"""Stands in where the model thinks of no persona."""


class State(TypedDict):
    annotation: "Annotation"


def annotate(workspace: Workspace, run: str, count: int, report: Reporter, *, cycle: int = 0) -> Funnel:
    """Design `count` tasks over the environments of the workspace and have them done, judged and filtered.

    The caller holds the workspace (`tutelage.cycle_lock`), for what is accepted is experience that cycles learn from.

    Args:
        run: names this piece of work; the same name goes on with it.
        cycle: the cycle it is part of; 0 if none.

    Raises:
        BudgetSpent: a limit was reached; everything so far is in the record.
        ConfigError: the run was begun with other settings.
        JudgeUnfit: a judge that costs money may not filter what a model designs.
        RecordError: the runs of the workspace are another tenant's.
    """
    annotation = Annotation(workspace, run, count, report, cycle)
    annotation.begin()
    # A fresh context: within another graph's node the run would inherit that graph's checkpointer.
    Context().run(_graph().invoke, State(annotation=annotation))
    return annotation.filter()


class Annotation:
    """One run; the graph's nodes are its methods."""

    def __init__(self, workspace: Workspace, run: str, count: int, report: Reporter, cycle: int) -> None:
        self.workspace, self.record = workspace, workspace.record
        self.run, self.count, self.report, self.cycle = run, count, report, cycle
        self.config = workspace.config.annotate
        self.store = DesignStore(self.record, run)
        names = workspace.taught.names
        self.share = {name: count // len(names) + (place < count % len(names)) for place, name in enumerate(names)}
        parts = [part for part in workspace.suite.parts if self.share.get(part.name)]
        self.free = {part.name: part for part in parts if part.environment.design_guide}
        """Environments whose tasks can be designed freely."""
        self.drawn = [part for part in parts if part.name not in self.free]

    def begin(self) -> None:
        """Keep what the run depends on, or see that it is still the same."""
        self.record.claim()
        begun = bool(self.store.designs(EXPLORED) or self.record.get("drawn", self.run))
        same_settings(self.record, self.run, self.workspace.config, self.count, begun=begun)

    # -- nodes ----------------------------------------------------------------------------------

    def calibrate(self) -> None:
        """Measure the judge before anything is spent on tasks that it may not filter.

        Where that would cost money the run ends here; with a model that has no price only time is lost.
        """
        if not self.free or self.workspace.llm("designer").embedded or self.fit:
            return
        roles = ("teacher", "designer", "judge")
        if any(price(self.workspace.config.teacher.model_for(role), 1000, 1000) for role in roles):
            raise JudgeUnfit(
                "nothing was spent on tasks, for the judge may not filter them (why is said above); name another "
                "(--judge), or let it filter all the same (--trust-judge)"
            )

    def personas(self) -> None:
        """Think of people who would use each environment."""
        llm = self.workspace.llm("persona")
        for name, part in self.free.items():
            if self.store.personas(name):
                continue
            view = PersonaView(name, _about(part.environment), (), self.config.personas)
            found, lost = [], ""
            try:
                found = invent(view, llm)
            except BudgetSpent:
                raise
            except TutelageError as error:
                if isinstance(error, AttemptFailed) and error.failure.transient:
                    raise  # nobody is there, so nothing else would come of asking either
                lost = str(error)
                self.report.say(f"  no personas for {name}: {error}")
            body = {"personas": [item.model_dump() for item in found or [SOMEBODY]], "author": llm.label, "lost": lost}
            self.record.put("persona", f"{self.run}/{name}", body)

    def explore(self) -> None:
        """Look around in fresh start states, as far as designs are still missing."""
        waiting = {design.task.environment for design in self._unanswered()}
        with self.record.transaction():  # all or none, so that a killed run explores as often as any other
            for name, part in self.free.items():
                # What an interrupted run left comes first.
                for _ in range(0 if name in waiting else self._wanting(name)):
                    self.store.add(self._exploration(part))
        act = self.workspace.config.act.model_copy(update={"max_steps": self.config.explore_steps})
        tasks = [design.task for design in self._unanswered()]
        self._play(tasks, self.workspace.acting(), EXPLORATION, act)

    def design(self) -> None:
        """Ask the designer at a few places of each exploration; keep what can be played and is new."""
        llm = self.workspace.llm("designer")
        todo = self._unanswered()
        for done, design in enumerate(todo, 1):
            name, exploration = design.task.environment, self._episode(design.task)
            if exploration is None or len(exploration.steps) < 2:
                self.store.give_up(design, "nothing explored", exploration.error if exploration else "")
                continue
            environment = self.free[name].environment
            persona = next(item for item in self.store.personas(name) if item.name == design.persona)
            ends = range(2, len(exploration.steps) + 1)
            cuts = sorted(Random(stable_seed(0, design.task.id)).sample(ends, min(CUTS, len(ends))))
            count, guide = self.config.per_exploration, environment.design_guide
            answers = propose_many(
                [designer_view(exploration, persona, guide, until=cut, count=count) for cut in cuts], llm
            )
            for answer in answers:
                if isinstance(answer, BudgetSpent):
                    raise answer
            self.store.keep(design, answers, environment, author=llm.label, by_rule=llm.embedded)
            self.report("designs from explorations", done, len(todo))

    def annotate(self) -> None:
        """Have the teacher do every task on a freshly reset environment."""
        designs = [item for name in self.free for item in self.store.designs(DESIGNED, name)[: self.share[name]]]
        tasks = [*(design.task for design in designs), *self._drawn()]
        self._play(tasks, self.workspace.annotator(), DESIGNED, self.workspace.config.act)

    def judge(self) -> None:
        """Verdicts, with the designers' hints."""
        usable = [item for item in self._episodes() if item.ending not in BROKEN]
        known = self._verdicts()
        hints = {item.id: hint for item in usable if (hint := hint_of(self.record, item.task)) is not None}
        done = sum(item.id in known for item in usable)

        def keep(verdict: Verdict) -> None:
            nonlocal done
            done += 1
            self.record.add_verdict(verdict)
            self.report("judged", done, len(usable))

        llm, votes = self.workspace.llm("judge"), self.workspace.config.teacher.votes
        judge_missing(usable, known, llm, keep, hints=hints, votes=votes)

    # -- edges and end --------------------------------------------------------------------------

    def after_design(self) -> str:
        """Explore again while designs are missing that it may bring."""
        return "explore" if any(map(self._wanting, self.free)) else "annotate"

    def _wanting(self, name: str) -> int:
        """Explorations that would make up for the missing designs, as far as there may be more of them."""

        def enough_for(designs: int) -> int:
            return -(-max(0, designs) // (CUTS * self.config.per_exploration))

        missing = self.share[name] - len(self.store.designs(DESIGNED, name))
        left = ROUNDS * enough_for(self.share[name]) - len(self.store.designs(EXPLORED, name))
        return min(enough_for(missing), max(0, left))

    def filter(self) -> Funnel:
        """Accept or not, count, and keep both."""
        designs = self.store.designs(DESIGNED)
        bodies = [self.store.answered(design) for design in self.store.designs(EXPLORED)]
        found = funnel(
            asked=self.share,
            designs=designs,
            drawn=len(self._drawn()),
            lost=[reason for body in bodies if body for reason, _ in body["lost"]],
            episodes=self._episodes(),
            verdicts=self._verdicts(),
            fit=all(design.by_rule for design in designs) or self.fit,
            cycle=self.cycle,
        )
        self.record.put("annotation", self.run, found.model_dump(mode="json"))
        return found

    @cached_property
    def fit(self) -> bool:
        """Whether the judge's measured precision lets it filter."""
        if self.config.trust_judge:
            return True
        model = self.workspace.config.teacher.model_for("judge")
        found = calibrate_judge(self.workspace, model, self.config.calibrate, self.report)
        if found.fit(self.config.min_precision):
            return True
        self.report.say(
            f"  the judge may not filter: {found.why(self.config.min_precision)}; "
            "annotate.trust_judge=true lets it all the same"
        )
        return False

    def _verdicts(self) -> dict[str, Verdict]:
        """This judge's, by trajectory; another one's word is not what was measured."""
        label = judge_label(self.workspace.llm("judge"), self.workspace.config.teacher.votes)
        return {item.trajectory: item for item in self.record.verdicts() if item.judge == label}

    # -- tasks ----------------------------------------------------------------------------------

    def _unanswered(self) -> list[Design]:
        """Explorations that the designer was not asked about yet."""
        return [design for design in self.store.designs(EXPLORED) if self.store.answered(design) is None]

    def _exploration(self, part: Part) -> Design:
        number, personas = self.store.number(part.name, EXPLORED), self.store.personas(part.name)
        start, place = divmod(number, len(part.families))
        base = part.environment.tasks(Split.TRAIN, [part.families[place]], start=FIRST_BASE + start)[0]
        persona = personas[number % len(personas)]
        task = Task(environment=part.name, family=EXPLORED, seed=number, split=Split.TRAIN)
        return Design(task=task, base=base, goal=exploration_goal(persona), persona=persona.name)

    def _drawn(self) -> list[Task]:
        """The tasks that are drawn, where goals cannot be designed."""
        seed = stable_seed(self.workspace.config.seed, self.run)
        return drawn_tasks(self.record, self.run, self.drawn, self.share, seed) if self.drawn else []

    # -- episodes -------------------------------------------------------------------------------

    def _key(self, task: Task) -> str:
        return f"annotation/{self.run}/{task.id}"

    def _episode(self, task: Task) -> Trajectory | None:
        return self.record.trajectory_by_key(self._key(task))

    def _episodes(self) -> list[Trajectory]:
        """The annotator's, in the order of their tasks."""
        tasks = [*(design.task for design in self.store.designs(DESIGNED)), *self._drawn()]
        return [found for task in tasks if (found := self._episode(task)) is not None]

    def _play(self, tasks: Sequence[Task], policy: Policy, arm: str, act: ActConfig) -> None:
        missing = [task for task in tasks if not self.record.has_key(self._key(task))]
        done = len(tasks) - len(missing)
        suite = self.workspace.suite.with_designs([*self.store.designs(DESIGNED), *self.store.designs(EXPLORED)])

        def finished(index: int, trajectory: Trajectory) -> None:
            nonlocal done
            done += 1
            self.record.add_trajectory(trajectory, key=self._key(missing[index]), cycle=self.cycle, arm=arm)
            self.report(arm, done, len(tasks))

        if missing:
            seed = stable_seed(self.workspace.config.seed, self.run, arm)
            run_episodes(missing, policy, suite.make, act=act, seed=seed, on_finished=finished)


def _about(environment: type[Environment]) -> str:
    """What the environment is, in its own words."""
    return str(getattr(environment, "intro", "") or (environment.__doc__ or "").strip().partition("\n")[0])


@cache
def _graph() -> Any:
    """calibrate → persona → explore → design → (explore …) → annotate → judge; `filter` comes after."""
    graph = StateGraph(State)
    nodes = {
        "calibrate": Annotation.calibrate,
        "persona": Annotation.personas,
        "explore": Annotation.explore,
        "design": Annotation.design,
        "annotate": Annotation.annotate,
        "judge": Annotation.judge,
    }
    for name, method in nodes.items():
        graph.add_node(name, _node(method))
    graph.add_edge(START, "calibrate")
    graph.add_edge("calibrate", "persona")
    graph.add_edge("persona", "explore")
    graph.add_edge("explore", "design")
    graph.add_conditional_edges("design", _node(Annotation.after_design), ["explore", "annotate"])
    graph.add_edge("annotate", "judge")
    graph.add_edge("judge", END)
    return graph.compile()


def _node(method: Callable[[Annotation], object]) -> Any:
    return lambda state: method(state["annotation"])
