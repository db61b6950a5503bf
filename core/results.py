"""What a cycle found out, as small documents in the record, and as a table for people and programs."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from tutelage.measures import Arm, Comparison, Rate
from tutelage.types import Frozen, Split

if TYPE_CHECKING:
    from rich.table import Table

    from tutelage.record import Record


class EvaluationDoc(Arm):
    """One measured arm of a cycle, as the tables show it."""

    cycle: int
    name: str
    """Names the arm within the cycle, e.g. ``base-off``."""
    label: str
    """Heading for readers, e.g. ``base`` or ``after SFT``."""
    policy: str = ""
    """Label of the policy that acted; says so where it is scripted or a random model."""


class ComparisonDoc(Comparison):
    """A paired comparison of two evaluations of a cycle."""

    cycle: int
    old: str
    new: str
    """Names of the two evaluations."""
    by_environment: dict[str, Comparison] = {}
    """The same by environment, where there are several."""
    decides: bool = False
    """Whether the gate rests on this comparison; never true on the test split."""

    @property
    def name(self) -> str:
        return f"{self.new}-vs-{self.old}"


class GateDoc(Frozen):
    """A cycle's decision on its last student."""

    cycle: int
    promoted: bool
    reason: str
    candidate: str
    """Label of the student that wanted to be promoted."""
    incumbent: str
    """Label of the student that was promoted before."""
    comparison: str = ""
    """Name of the comparison that decided."""
    min_gain: float = 0.0


class CycleDoc(Frozen):
    """What went into a cycle and what it cost."""

    cycle: int
    environments: tuple[str, ...]
    families: tuple[str, ...] = ()
    teacher: str = ""
    """Label of the policy that demonstrated."""
    episodes: dict[str, int] = {}
    """Episodes collected, by arm."""
    accepted: int = 0
    """Successful episodes that training could use."""
    experiences: dict[str, int] = {}
    """Experiences in use by kind, candidates included."""
    confidence: float = 0.95
    """Level of all the cycle's intervals."""
    seconds: dict[str, float] = {}
    """Wall-clock time by step of the cycle."""


class AlarmDoc(Frozen):
    """Why a training stage did not go on as it did, and what was done about it."""

    cycle: int
    stage: str
    student: int
    """Number of the student that the stage makes."""
    step: int
    """Optimiser step after which the alarm was raised."""
    alarm: str
    action: Literal["stop", "restore"]
    good: int
    """Step after which the last good weights were reached; 0: the stage's starting weights."""
    text: str
    """All of it in one line."""

    @property
    def name(self) -> str:
        return f"{self.stage}/{self.student}/{self.step}"


Doc = TypeVar("Doc", EvaluationDoc, ComparisonDoc, GateDoc, CycleDoc, AlarmDoc)

KINDS: dict[type[Frozen], str] = {
    EvaluationDoc: "evaluation",
    ComparisonDoc: "comparison",
    GateDoc: "gate",
    CycleDoc: "summary",  # a document named `cycle` is the loop's own, on how far it is
    AlarmDoc: "alarm",
}


def save(record: "Record", doc: EvaluationDoc | ComparisonDoc | GateDoc | CycleDoc | AlarmDoc) -> bool:
    """Put the document under its cycle and name; False if exactly this is there already."""
    key = f"{doc.cycle}/{doc.name}" if isinstance(doc, EvaluationDoc | ComparisonDoc | AlarmDoc) else str(doc.cycle)
    return record.put(KINDS[type(doc)], key, doc.model_dump(mode="json"))


def load(record: "Record", kind: type[Doc], cycle: int | None = None) -> list[Doc]:
    """All documents of a kind (of one cycle), in the order in which they were first saved."""
    found = [kind.model_validate(body) for body in record.items(KINDS[kind]).values()]
    return [doc for doc in found if cycle is None or doc.cycle == cycle]


def cycles(record: "Record") -> list[int]:
    """Cycles that have measured something, oldest first; 0 stands for what was done by hand."""
    return sorted({doc.cycle for doc in load(record, EvaluationDoc)})


def results_json(record: "Record", cycle: int) -> dict[str, Any]:
    """Everything measured in a cycle, ready for `json.dumps`; evaluations without their trajectory ids."""
    gates, evaluations = load(record, GateDoc, cycle), load(record, EvaluationDoc, cycle)
    summaries = load(record, CycleDoc, cycle)
    return {
        "cycle": cycle,
        "summary": summaries[-1].model_dump(mode="json") if summaries else None,
        "evaluations": [
            doc.model_dump(mode="json", exclude={"trajectories"}) | {"success": doc.rate.rate} for doc in evaluations
        ],
        "comparisons": [doc.model_dump(mode="json") for doc in load(record, ComparisonDoc, cycle)],
        "gate": gates[-1].model_dump(mode="json") if gates else None,
    }


def results_table(record: "Record", cycle: int) -> "Table":
    """The evaluations of a cycle with intervals and paired gains."""
    from rich.markup import escape
    from rich.table import Table

    evaluations, comparisons = load(record, EvaluationDoc, cycle), load(record, ComparisonDoc, cycle)
    gates = load(record, GateDoc, cycle)
    table = Table(title=f"Cycle {cycle}", caption="\n".join(_captions(evaluations, gates)), caption_justify="left")
    for title in ("student", "memory", "split", "success", "interval", "n", "paired gain in points"):
        table.add_column(title, justify="right" if title in ("success", "n") else "left", no_wrap=True)
    for doc in evaluations:
        compared = [item for item in comparisons if item.new == doc.name]
        gains = [f"{points(item)} vs {heading(evaluations, item.old)}" for item in compared]
        cells = (
            doc.label,
            "on" if doc.memory else "off",
            f"{doc.split}{'*' if doc.split is Split.TEST else ''}",
            percent(doc.rate),
            interval(doc.rate),
            str(doc.rate.episodes),
            "\n".join(gains),
        )
        table.add_row(*map(escape, cells))
        if len(doc.by_environment) > 1:
            for name, rate in doc.by_environment.items():
                parts = [points(item.by_environment[name]) for item in compared if name in item.by_environment]
                cells = (f"  {name}", "", "", percent(rate), interval(rate), str(rate.episodes), "\n".join(parts))
                table.add_row(*map(escape, cells))
    return table


def rates(doc: Arm) -> dict[str, Rate]:
    """Success by family, and by environment where there are several."""
    return doc.by_family | (doc.by_environment if len(doc.by_environment) > 1 else {})


def heading(evaluations: Sequence[EvaluationDoc], name: str) -> str:
    """What to call an evaluation in a sentence."""
    for doc in evaluations:
        if doc.name == name:
            return f"{doc.label}, memory on" if doc.memory else doc.label
    return name


def percent(rate: Rate) -> str:
    return f"{100 * rate.rate:.0f} %" if rate.episodes else "–"


def interval(rate: Rate) -> str:
    return f"{100 * rate.low:.0f} to {100 * rate.high:.0f} %" if rate.episodes else "–"


def points(comparison: Comparison) -> str:
    """The gain with its interval, in percentage points."""
    return f"{_signed(comparison.gain)} ({_signed(comparison.low)} to {_signed(comparison.high)})"


def _signed(share: float) -> str:
    return f"{100 * share:+.0f}".replace("-", "\N{MINUS SIGN}")


def _captions(evaluations: list[EvaluationDoc], gates: list[GateDoc]) -> list[str]:
    captions = [gate.reason for gate in gates[-1:]]
    seen, broken = sum(doc.excluded for doc in evaluations), sum(doc.broken for doc in evaluations)
    captions.append(f"left out: {seen} episodes whose task occurred in training, {broken} whose environment broke")
    if any(doc.split is Split.TEST for doc in evaluations):
        captions.append("* the test split is reported and decides nothing")
    return captions
