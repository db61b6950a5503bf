"""What consolidation merges and surfaces, on variants of a workspace's own experiences and on labelled pairs.

    python benchmarks/consolidation.py --workspace DIR

A copy of the record gets variants of each experience, made by the rules below: some say the same in another way, some
the opposite, some something else. Then the memory is consolidated. Beside it stands what similarity alone would have
merged. The workspace itself is only read.
"""

import argparse
import json
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from tutelage.experience import Change, Content, Experience, Guardrail, Skill, Source, Status, Sticker
from tutelage.memory.consolidation import consolidate
from tutelage.memory.embedder import embedder
from tutelage.memory.merging import part
from tutelage.memory.polarity import Agreement, agreement
from tutelage.memory.text import distilled
from tutelage.types import new_id
from tutelage.workspace import Workspace, find_config

ROOT = Path(__file__).parent.parent
PAIRS = ROOT / "tests" / "memory" / "pairs.jsonl"

ALWAYS, NEVER = (
    "Always read the goal again before the last action.",
    "Never read the goal again before the last action.",
)


def lines(content: Content, put: Callable[[tuple[str, ...]], tuple[str, ...]]) -> Content:
    """The content with its conditions, or preconditions, changed."""
    if isinstance(content, Sticker):
        return content.model_copy(update={"conditions": put(content.conditions)})
    if isinstance(content, Skill):
        return content.model_copy(update={"preconditions": put(content.preconditions)})
    return content


def words(content: Content, pattern: str, put: str) -> Content:
    """The content with a pattern replaced in all its texts."""
    return type(content).model_validate_json(re.sub(pattern, put, content.model_dump_json()))


def variants(content: Content) -> Iterator[tuple[str, str, Content]]:
    """Label, rule and content of each variant that differs from the original."""
    made: list[tuple[str, str, Content]] = [
        ("same", "conditions in another order", lines(content, lambda all_: all_[::-1])),
        (
            "same",
            "`there is` for `the page has`",
            words(content, r"The page has (an? [^.]*?)\.\"", r'There is \1 on the page."'),
        ),
        ("different", "another button", words(content, "Submit|Login", "Cancel")),
        ("different", "another slot", words(content, r"\{goal\}", "{other}")),
        ("different", "another count", words(content, r"names 1 ", "names 3 ")),
        ("different", "one condition less", lines(content, lambda all_: all_[:-1] or all_)),
        ("different", "one condition more", lines(content, lambda all_: (*all_, "The page has a dialog."))),
        (
            "different",
            "a condition denied",
            lines(content, lambda all_: (*all_[:-1], denied(all_[-1])) if all_ else all_),
        ),
        (
            "different",
            "an exception",
            lines(content, lambda all_: (*all_[:-1], f"{all_[-1][:-1]}, unless it is hidden.") if all_ else all_),
        ),
    ]
    if isinstance(content, Skill) and len(content.procedure) > 1:
        steps = content.procedure
        made.append(("different", "steps in another order", content.model_copy(update={"procedure": steps[::-1]})))
        made.append(("different", "one step less", content.model_copy(update={"procedure": steps[:-1]})))
    if isinstance(content, Guardrail):
        opposite = content.remedy.replace("Do ", "Never do ", 1)
        made.append(("opposite", "remedy denied", content.model_copy(update={"remedy": opposite})))
        please = content.remedy.replace("Do ", "Always do ", 1)
        made.append(("same", "`always do` for `do`", content.model_copy(update={"remedy": please})))
        held = (*content.trigger, 'not dialog "*"')
        made.append(("different", "one trigger more", content.model_copy(update={"trigger": held})))
    yield from (item for item in made if item[2] != content)


def denied(line: str) -> str:
    return re.sub(r"\b(has|names|shows|reads)\b", r"never \1", line, count=1)


def advised(content: Content) -> tuple[Content, Content] | None:
    """Two versions with advice that contradicts the other's."""
    if isinstance(content, Guardrail):
        return None
    always, never = (lines(content, lambda all_, word=word: (*all_, word)) for word in (ALWAYS, NEVER))
    return always, never


def inject(workspace: Workspace) -> dict[frozenset[str], tuple[str, str]]:
    """Add the variants; returns label and rule by the pair of ids."""
    labels: dict[frozenset[str], tuple[str, str]] = {}

    def add(like: Experience, content: Content) -> Experience:
        source = Source(trajectory="", task=f"injected/{new_id('x')}", origin="own")
        change = Change(by="hand:benchmark", reason="variant")
        data = {"id": new_id("exp"), "version": 1, "content": content, "sources": (source,), "change": change}
        return workspace.memory.add(like.model_copy(update={**data, "status": Status.CANDIDATE}))

    for item in workspace.memory.experiences(statuses=[Status.ACTIVE]):
        for label, rule, content in variants(item.content):
            labels[frozenset((item.id, add(item, content).id))] = label, rule
        both = advised(item.content)
        if both is not None:
            labels[frozenset(add(item, content).id for content in both)] = "opposite", "advice against advice"
    return labels


def table(title: str, rows: dict[tuple[str, str], Counter[str]]) -> None:
    print(f"\n{title}")
    print(f"{'label':<10} {'variant':<32} {'pairs':>5} {'near':>5} {'merged':>7} {'contradict':>11} {'stay two':>9}")
    for (label, rule), found in sorted(rows.items()):
        print(
            f"{label:<10} {rule:<32} {sum(found[key] for key in ('same', 'opposite', 'two')):>5} {found['near']:>5} "
            f"{found['same']:>7} {found['opposite']:>11} {found['two']:>9}"
        )


def on_workspace(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as copy:
        for name in ("record.db", "config.json"):
            shutil.copy(folder / name, copy)
        workspace = Workspace(find_config(None, [f"workspace={copy}"]))
        try:
            before = len(workspace.memory.experiences())
            labels = inject(workspace)
            config = workspace.config.memory.model_copy(update={"asked": 0})
            embed = embedder(config.embedder).embed
            by_id = {item.id: item for item in workspace.memory.experiences()}
            found = consolidate(workspace.memory, workspace.record, config)
            merged = {frozenset((item.winner, item.loser)) for item in found.merges}
            opposed = {frozenset((item.first, item.second)) for item in found.contradictions}
            rows: dict[tuple[str, str], Counter[str]] = {}
            for pair, label in labels.items():
                first, second = (by_id[key] for key in pair) if len(pair) == 2 else (None, None)
                if first is None or second is None:
                    continue
                vectors = embed([distilled(first), distilled(second)])
                cell = rows.setdefault(label, Counter())
                cell["near"] += bool(float(vectors[0] @ vectors[1]) >= config.similar)
                cell["same" if pair in merged else "opposite" if pair in opposed else "two"] += 1
            table(f"{before} experiences, {len(labels)} variants; merged by the cycle's own consolidation", rows)
            wrong = [pair for pair in merged if pair in labels and labels[pair][0] != "same"]
            unknown = [pair for pair in merged if pair not in labels]
            near = sum(cell["near"] for (label, _), cell in rows.items() if label != "same")
            print(f"merged wrongly: {len(wrong)}; similarity alone would have merged {near} of these wrongly")
            print(f"merged though no rule made them a pair: {len(unknown)}")
            for pair in unknown:
                one, other = (by_id[key] for key in pair)
                print(f"  {one.content.model_dump_json()}\n  {other.content.model_dump_json()}")
            for item in found.merges:
                part(workspace.memory, workspace.record, item.loser, by="hand:benchmark")
            undone = sum(
                all(_as_before(workspace.memory.get(key), by_id[key]) for key in (item.winner, item.loser))
                for item in found.merges
            )
            print(f"undone: both sides are what they were after {undone} of {len(found.merges)} merges")
        finally:
            workspace.close()


def _as_before(now: Experience, then: Experience) -> bool:
    return (now.status, now.merged, {*now.sources}, now.trust) == (then.status, (), {*then.sources}, then.trust)


def on_pairs() -> None:
    pairs = [json.loads(line) for line in PAIRS.read_text().splitlines()]
    embed = embedder("wordllama").embed
    rows: dict[tuple[str, str], Counter[str]] = {}
    for pair in pairs:
        first, second = (_labelled(pair[side]) for side in "ab")
        cell = rows.setdefault((pair["label"], "labelled pairs"), Counter())
        vectors = embed([distilled(first), distilled(second)])
        cell["near"] += bool(float(vectors[0] @ vectors[1]) >= 0.85)
        said = agreement(first, second).agreement
        cell["same" if said is Agreement.SAME else "opposite" if said is Agreement.OPPOSITE else "two"] += 1
    table(f"{len(pairs)} labelled pairs, by rule, whatever their similarity (near: cosine ≥ 0.85)", rows)


def _labelled(content: object) -> Experience:
    if isinstance(content, str):
        content = {"kind": "sticker", "conditions": [content], "question": "What comes next?"}
    values = {"environment": "e", "family": "f", "goal": "g", "content": content, "author": "a hand"}
    return Experience.model_validate({**values, "sources": (Source(trajectory="", task="", origin="user:a"),)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", type=Path, help="whose record is copied; without one, the labelled pairs only")
    options = parser.parse_args()
    on_pairs()
    if options.workspace is not None:
        on_workspace(options.workspace)


if __name__ == "__main__":
    main()
