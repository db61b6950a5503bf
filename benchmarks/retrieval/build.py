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
from pathlib import Path

from tutelage import cycle, distilling
from tutelage.agents.experts import covered_families
from tutelage.agents.extraction import extract
from tutelage.config import EnvironmentConfig, load_config
from tutelage.experience import Experience, Guardrail
from tutelage.patterns import goal_values, occurs
from tutelage.progress import Reporter
from tutelage.relevance import FITS, KIN, grades, related, stopped
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
OBSERVATION = 1000
"""Characters of an observation in a situation, as when an agent recalls."""
VARIANT = re.compile(r"-(?:nodelay|easy|medium|hard|large|transfer|noscroll)$")
"""Ends of the names of families that are the same task with other timing or size."""
DETAIL = ("{}", "the one with {}", "what did we do about {}", "{} {family}", "how did it end for {}")
COMMON = 2
"""A value that more learned episodes than this have in their goals is no detail."""


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
    asked = list(numbered([*situations(experiences, kept), *typed(experiences), *details(experiences, learned)]))
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


def situations(experiences: Sequence[Experience], kept: Sequence[Trajectory]) -> Iterator[Question]:
    """Where an agent stands: at the beginning of a success, and before a mistake that some guardrail is about."""
    for sort, kinds, place in (
        ("situation", ("skill", "sticker"), lambda _, item: item.steps[0].observation if item.success else None),
        ("mistake", ("guardrail",), _before_a_mistake),
    ):
        pool = [item for item in experiences if item.kind in kinds]
        taken: dict[str, int] = defaultdict(int)
        for episode in kept:
            found = grades(episode, pool)
            observation = place([item for item in pool if found.get(item.id) == FITS], episode)
            if observation is None or FITS not in found.values() or taken[episode.task.kind] == PER_FAMILY:
                continue
            taken[episode.task.kind] += 1
            yield Question(
                id="",
                sort=sort,
                group=group(episode.task.environment, episode.task.family),
                text=f"{episode.goal}\n{observation[:OBSERVATION]}",
                environment=episode.task.environment,
                kinds=kinds,
                task=episode.task.id,
                grades=found,
            )


def _before_a_mistake(fitting: Sequence[Experience], episode: Trajectory) -> str | None:
    steps = [at for item in fitting if isinstance(item.content, Guardrail) for at in stopped(item.content, episode)]
    return episode.steps[min(steps)].observation if steps else None


def typed(experiences: Sequence[Experience]) -> Iterator[Question]:
    """What a person would type: `asked.tsv`, written by hand from the tasks' goals before any search was run."""
    wanted = {"how": "skill", "care": "guardrail"}
    for line in (HERE / "asked.tsv").read_text().splitlines():
        place, sort, text = line.split("\t")
        about = [item for item in experiences if group(item.environment, item.family) == place]
        found = {item.id: FITS if item.kind == wanted[sort] else KIN for item in about}
        if FITS in found.values():
            yield Question(id="", sort=f"typed: {sort}", group=place, text=text, grades=found)


def details(experiences: Sequence[Experience], learned: Sequence[Trajectory]) -> Iterator[Question]:
    """Questions that name one exact thing of a past episode; what was drawn from that episode is the answer."""
    chance = random.Random(SEED)
    by_family: dict[str, list[Trajectory]] = defaultdict(list)
    for item in learned:
        by_family[item.task.kind].append(item)
    for number, (kind, episodes) in enumerate(sorted(by_family.items())):
        values = {value for item in episodes for _, value in goal_values(item.goal) if len(value.strip()) > 2}
        rare = [value for value in sorted(values) if sum(occurs(value, item.goal) for item in learned) <= COMMON]
        for value in chance.sample(rare, min(PER_FAMILY, len(rare))):
            sources = {item.id for item in learned if occurs(value, item.goal)}
            drawn = {item.id for item in experiences if sources & {source.trajectory for source in item.sources}}
            family = kind.partition("/")[2]
            about = {item.id: KIN for item in experiences if any(related(item, episode) for episode in episodes)}
            text = DETAIL[number % len(DETAIL)].format(value, family=family.replace("-", " "))
            graded = {**about, **dict.fromkeys(sorted(drawn), FITS)}
            yield Question(id="", sort="detail", group=group(*kind.split("/")), text=text, grades=graded)


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
