"""Make the retrieval benchmark's data: play real episodes, distil some, and ask about others. Run once, then frozen.

    python benchmarks/retrieval/build.py FOLDER

Plays scripted experts, with and without injected mistakes, in toy, files, sqlite and miniwob (which needs a browser),
each in a workspace of its own under FOLDER, distils a part of the episodes, and writes `corpus.jsonl.gz` and
`questions.jsonl` beside this file. README.md says what the questions are and how answers are graded.
"""

import argparse
import gzip
import json
import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

from tutelage import cycle, distilling
from tutelage.agents.experts import covered_families
from tutelage.agents.extraction import extract
from tutelage.config import EnvironmentConfig, load_config
from tutelage.experience import Experience
from tutelage.progress import Reporter
from tutelage.questions import asked_in, details
from tutelage.relevance import FITS, KIN
from tutelage.retrieval import Question
from tutelage.types import Trajectory
from tutelage.workspace import Workspace

HERE = Path(__file__).resolve().parent
ENVIRONMENTS = ("toy", "files", "sqlite", "miniwob")
SEED = 11
DEMONSTRATIONS, MISTAKEN = 10, 8
LEARNED = {cycle.DEMONSTRATIONS: 6, cycle.MISTAKEN: 5}
"""Episodes per family that feed memory, by arm; the others are what situations are taken from."""
PER_FAMILY = 2
"""Situations of each sort per family at most."""
VARIANT = re.compile(r"-(?:nodelay|easy|medium|hard|large|transfer|noscroll)$")
"""Ends of the names of families that are the same task with other timing or size."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where to keep the workspaces")
    folder = parser.parse_args().folder
    experiences: list[Experience] = []
    learned: list[Trajectory] = []
    kept: list[Trajectory] = []
    for name in ENVIRONMENTS:
        new, fed, apart = gathered(name, folder / f"ws-{name}")
        experiences, learned, kept = experiences + new, learned + fed, kept + apart
    needed = {source.trajectory for item in experiences for source in item.sources}
    learned = [item for item in learned if item.id in needed]
    situations = (asked_in(sort, experiences, kept, PER_FAMILY, group) for sort in ("situation", "mistake"))
    apart_from = details(experiences, learned, PER_FAMILY, group, seed=SEED)
    asked = list(numbered([*chain(*situations), *typed(experiences), *apart_from]))
    with gzip.GzipFile(HERE / "corpus.jsonl.gz", "wb", mtime=0) as file:
        for line in lines(experiences, learned):
            file.write(line.encode() + b"\n")
    (HERE / "questions.jsonl").write_text("".join(item.model_dump_json() + "\n" for item in asked))
    print(f"{len(experiences)} experiences from {len(learned)} episodes, {len(asked)} questions")


def gathered(name: str, folder: Path) -> tuple[list[Experience], list[Trajectory], list[Trajectory]]:
    """Experiences of one environment, the episodes they may come from, and the episodes held apart."""
    counts = [f"collect.demonstrations={DEMONSTRATIONS}", f"collect.mistaken={MISTAKEN}", "collect.explored=0"]
    config = load_config(None, [f"workspace={folder}", f"seed={SEED}", "collect.mistake_rate=0.35", *counts])
    families = EnvironmentConfig(name=name, families=covered_families(name))
    workspace = Workspace(config.model_copy(update={"environments": (families,)}))
    report = Reporter(None)
    cycle.collect(workspace, 1, report)
    distilling.judge(workspace, 1, report)
    verdicts = {verdict.trajectory: verdict for verdict in workspace.record.verdicts()}
    learned: list[Trajectory] = []
    apart: list[Trajectory] = []
    for arm, count in LEARNED.items():
        taken: dict[str, int] = defaultdict(int)
        for item in workspace.record.trajectories(arm=arm):
            taken[item.task.family] += 1
            (learned if taken[item.task.family] <= count else apart).append(item)
    llm = workspace.llm("distiller", "expert/*")
    found = extract(learned, verdicts, distiller_llm=llm, per_family=sum(LEARNED.values()))
    workspace.close()
    return list(found.experiences), learned, apart


def typed(experiences: Sequence[Experience]) -> Iterator[Question]:
    """What a person would type: `asked.tsv`, written by hand from the tasks' goals before any search was run."""
    wanted = {"how": "skill", "care": "guardrail"}
    for line in (HERE / "asked.tsv").read_text().splitlines():
        place, sort, text = line.split("\t")
        about = [item for item in experiences if group(item.environment, item.family) == place]
        found = {item.id: FITS if item.kind == wanted[sort] else KIN for item in about}
        if FITS in found.values():
            yield Question(id="", sort=f"typed: {sort}", group=place, text=text, grades=found)


def group(environment: str, family: str) -> str:
    while VARIANT.search(family):
        family = VARIANT.sub("", family)
    return f"{environment}/{family}"


def numbered(questions: Iterable[Question]) -> Iterator[Question]:
    """With ids, and in halves that share no group."""
    found = list(questions)
    groups = sorted({item.group for item in found})
    random.Random(SEED).shuffle(groups)
    tuning = set(groups[::2])
    for number, item in enumerate(found, 1):
        yield item.model_copy(update={"id": f"q{number:03}", "half": "tuning" if item.group in tuning else "report"})


def lines(experiences: Iterable[Experience], learned: Iterable[Trajectory]) -> Iterator[str]:
    """One JSON object per line; of the episodes, what search may look at and no more."""
    dump: Callable[[object], str] = lambda value: json.dumps(value, ensure_ascii=False)  # noqa: E731
    for item in experiences:
        yield dump({"experience": item.model_dump(mode="json")})
    for episode in learned:
        steps = tuple(step.model_copy(update={"tokens": None}) for step in episode.steps)
        yield dump({"trajectory": episode.model_copy(update={"system": "", "steps": steps}).model_dump(mode="json")})


if __name__ == "__main__":
    main()
