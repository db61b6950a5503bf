"""Questions about episodes, with the answers that are right by what was done in them (`tutelage.relevance`)."""

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence

from tutelage.experience import Experience, Guardrail, Kind
from tutelage.patterns import goal_values, occurs
from tutelage.relevance import FITS, KIN, grades, related, stopped
from tutelage.retrieval import Question
from tutelage.types import Trajectory

OBSERVATION = 1000
"""Characters of an observation in a question, as when an agent recalls."""
SHORTEST_DETAIL = 3
"""Characters."""
COMMON = 2
"""A value that more episodes than this have in their goals is no detail."""
DETAIL = ("{}", "the one with {}", "what did we do about {}", "{} {family}", "how did it end for {}")
SEEKING: dict[str, tuple[Kind, ...]] = {"situation": ("skill", "sticker"), "goal": (), "mistake": ("guardrail",)}
"""Kinds that each sort of question about a situation looks for; none: all."""

Group = Callable[[str, str], str]
"""Environment and family → the group of questions that are related."""


def asked_in(
    sort: str, experiences: Iterable[Experience], episodes: Iterable[Trajectory], per_family: int, group: Group
) -> Iterator[Question]:
    """What would have been asked in these episodes, and has an answer.

    Args:
        sort: ``situation``, goal and first observation of a success; ``goal``, only its goal and anywhere; ``mistake``,
            goal and observation before a step that some guardrail would have stopped.
        per_family: questions at most.
    """
    kinds = SEEKING[sort]
    pool = [item for item in experiences if not kinds or item.kind in kinds]
    taken: Counter[str] = Counter()
    for episode in episodes:
        if taken[episode.task.kind] == per_family:
            continue
        # What was drawn from this very task is no answer, so it must not be the only one.
        found = grades(episode, (item for item in pool if all(part.task != episode.task.id for part in item.sources)))
        fitting = [item for item in pool if found.get(item.id) == FITS]
        observation = _place(sort, fitting, episode)
        if observation is None or not fitting:
            continue
        taken[episode.task.kind] += 1
        yield Question(
            id=f"{sort} {episode.id}",
            sort=sort,
            group=group(episode.task.environment, episode.task.family),
            text=episode.goal if sort == "goal" else f"{episode.goal}\n{observation[:OBSERVATION]}",
            environment=None if sort == "goal" else episode.task.environment,
            kinds=kinds,
            task=episode.task.id,
            grades=found,
        )


def _place(sort: str, fitting: Sequence[Experience], episode: Trajectory) -> str | None:
    """The observation at which the question comes up, if it does."""
    if sort == "mistake":
        steps = [at for item in fitting if isinstance(item.content, Guardrail) for at in stopped(item.content, episode)]
        return episode.steps[min(steps)].observation if steps else None
    return episode.first_observation if episode.success else None


def details(
    experiences: Sequence[Experience], learned: Sequence[Trajectory], per_family: int, group: Group, *, seed: int
) -> Iterator[Question]:
    """Questions that name one exact thing of an episode; what was drawn from that episode is the answer.

    Args:
        learned: the episodes that experiences were drawn from.
    """
    chance = random.Random(seed)
    by_family: dict[str, list[Trajectory]] = defaultdict(list)
    for item in learned:
        by_family[item.task.kind].append(item)
    for number, (kind, episodes) in enumerate(sorted(by_family.items())):
        environment, _, family = kind.partition("/")
        named = {value for item in episodes for _, value in goal_values(item.goal)}
        values = sorted(value for value in named if len(value.strip()) >= SHORTEST_DETAIL)
        rare = [value for value in values if sum(occurs(value, item.goal) for item in learned) <= COMMON]
        about = {item.id: KIN for item in experiences if any(related(item, episode) for episode in episodes)}
        for value in chance.sample(rare, min(per_family, len(rare))):
            sources = {item.id for item in learned if occurs(value, item.goal)}
            drawn = [item.id for item in experiences if sources & {source.trajectory for source in item.sources}]
            yield Question(
                id=f"detail {kind} {value}",
                sort="detail",
                group=group(environment, family),
                text=DETAIL[number % len(DETAIL)].format(value, family=family.replace("-", " ")),
                grades={**about, **dict.fromkeys(sorted(drawn), FITS)},
            )
