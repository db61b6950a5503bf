"""The README of an exported student: where it comes from, what it was trained on, and what was measured of it.

It holds numbers and names; nothing that an episode said.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tutelage import lineage
from tutelage.measures import Student
from tutelage.results import interval, percent
from tutelage.training.weights import SMOLLM2_HUB_ID, describe, public_name
from tutelage.types import Split

if TYPE_CHECKING:
    from tutelage.workspace import Workspace

Format = Literal["merged", "adapter"]

LOADING = {
    "merged": """from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("FOLDER")
model = AutoModelForCausalLM.from_pretrained("FOLDER", dtype="float32")""",
    "adapter": """from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

base = AutoModelForCausalLM.from_pretrained("BASE", dtype="float32")
tokenizer = AutoTokenizer.from_pretrained("BASE")
model = PeftModel.from_pretrained(base, "FOLDER")""",
}


def card(workspace: "Workspace", student: Student, format: Format, *, base: Path | None, note: str = "") -> str:
    """The card as Markdown with the hub's front matter.

    Args:
        base: folder of the base weights, which may have a card with a licence; None if they are not here.
        note: what there is to say about this format.
    """
    record = workspace.record
    line = lineage.line(record, student)
    name = student.base or line[0].weights
    licence, why = licence_of(name, base)
    shown = public_name(name)
    if shown == name:
        shown = describe(name)
    maker = f"Tutelage {student.version}".rstrip()
    parts = [
        _front(name, format, licence),
        f"# {student.label}\n\nA language model agent that {maker} made of {shown}. {note}".rstrip(),
        "## Lineage\n\n" + _lineage(line),
        "## Trained on\n\n" + _data(workspace, line),
        "## Evaluation\n\n" + _evaluation(workspace, student),
        f"## Licence\n\n{why}",
        f"## Use\n\n```python\n{LOADING[format]}\n```",
    ]
    return "\n\n".join(parts) + "\n"


def licence_of(name: str, folder: Path | None) -> tuple[str, str]:
    """The base weights' licence as the hub calls it, and what to say about it."""
    if name in ("smollm2", SMOLLM2_HUB_ID):
        return "apache-2.0", "The base weights are under Apache-2.0."
    if name == "tiny":
        return "unknown", "The base weights are random numbers."
    readme = folder / "README.md" if folder is not None else None
    lines = readme.read_text(errors="replace").splitlines()[:60] if readme is not None and readme.is_file() else []
    for line in lines:
        if line.startswith("license:"):
            licence = line.partition(":")[2].strip().strip("\"'")
            return licence, f"The base weights are under {licence}, as their own card says."
    return "unknown", "The licence of the base weights was not with them; see where they come from."


def _front(name: str, format: Format, licence: str) -> str:
    hub = {"smollm2": SMOLLM2_HUB_ID}.get(name, public_name(name))
    known = "/" in hub  # as in no folder's own name
    lines = [
        f"library_name: {'peft' if format == 'adapter' else 'transformers'}",
        *([f"base_model: {hub}"] if known else []),
        f"license: {licence}",
        "pipeline_tag: text-generation",
        "tags:",
        "- tutelage",
        "- agent",
    ]
    return "\n".join(["---", *lines, "---"])


def _lineage(line: Sequence[Student]) -> str:
    rows = []
    for student in line:
        steps = student.settings.get("steps", "")
        method = student.trained_as.get("method", "")
        made = f"{student.stage}, {steps} steps, {method}".rstrip(", ") if student.parent else student.stage
        content = student.content or (line[-1].base_content if student.parent is None else "")
        rows.append(
            (
                student.label,
                made,
                len(student.trajectories),
                len(student.experiences),
                "" if student.seed is None else student.seed,
                student.commit[:12] or student.version,
                f"`{content[:16]}`" if content else "",
            )
        )
    heads = ("version", "made by", "trajectories", "experiences", "seed", "code", "SHA-256 of its files")
    return _table(heads, rows)


def _data(workspace: "Workspace", line: Sequence[Student]) -> str:
    """How many episodes of what, and who played them."""
    kinds: Counter[tuple[str, str]] = Counter()
    for item in lineage.trained_on(workspace.record, line):
        kinds[item.task.kind, _player(item.policy)] += 1
    if not kinds:
        return "Nothing."
    rows = [(kind, policy, count) for (kind, policy), count in sorted(kinds.items())]
    return "Episodes of the train split; held-out tasks are never trained on.\n\n" + _table(
        ("environment/family", "played by", "episodes"), rows
    )


def _player(policy: str) -> str:
    """A policy's label; what a student's goes on with may be where its base weights lie on this machine."""
    label, found, rest = policy.partition(" (")
    return f"{label} ({public_name(rest.removesuffix(')'))})" if found and ("/" in rest or "\\" in rest) else policy


def _evaluation(workspace: "Workspace", student: Student) -> str:
    """Every measured arm with its interval, and the decisions on it."""
    rows = [
        (
            doc.split or "all",
            "on" if doc.memory else "off",
            percent(doc.rate),
            interval(doc.rate),
            doc.rate.episodes,
            doc.excluded,
            ", ".join(dict.fromkeys(family.partition("/")[0] for family in doc.by_family)),
        )
        for doc in lineage.evaluations(workspace.record, student)
    ]
    if not rows:
        return "It was not measured."
    heads = ("split", "memory", "success", "interval", "episodes", "left out, seen in training", "environments")
    said = [f"Cycle {doc.cycle}: {doc.reason}." for doc in lineage.gates(workspace.record, student)]
    test = any(row[0] is Split.TEST for row in rows)
    if test:
        said.append("The test split decides nothing.")
    return "\n\n".join([_table(heads, rows), *said])


def _table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)
