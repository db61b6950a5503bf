"""Which experiences would answer a question: grades from what was done in episodes, never from a score of search.

An experience is worth 2 for an episode that it fits, 1 for another episode of its kin, and 0 otherwise. Kin has the
same environment and the same family or the same goal but for its values. What fits is told from the steps alone:

- a skill fits a success if each of its actions was taken there to some effect and no other action was;
- a guardrail fits where it would have stopped a step that did not come off, or of an episode that failed;
- a sticker, which makes no claim about actions, fits as its sibling does: a skill drawn from the same episode.
"""

from collections.abc import Iterable, Sequence

from tutelage.agents.drafts import names
from tutelage.agents.guard import covers
from tutelage.experience import Experience, Guardrail, Skill
from tutelage.patterns import goal_template
from tutelage.types import Trajectory

FITS, KIN = 2, 1


def grades(episode: Trajectory, experiences: Iterable[Experience]) -> dict[str, int]:
    """Grades above 0 of the experiences for this whole episode, by id."""
    kin = [item for item in experiences if related(item, episode)]
    fitting = {item.id for item in kin if fits(item, episode)}
    known = {
        source.trajectory for item in kin if item.id in fitting and item.kind == "skill" for source in item.sources
    }
    fitting |= {
        item.id for item in kin if item.kind == "sticker" and any(part.trajectory in known for part in item.sources)
    }
    return {item.id: FITS if item.id in fitting else KIN for item in kin}


def related(experience: Experience, episode: Trajectory) -> bool:
    """Whether it was drawn from tasks of this kin."""
    if experience.environment != episode.task.environment:
        return False
    return experience.family == episode.task.family or experience.goal == goal_template(episode.goal)


def fits(experience: Experience, episode: Trajectory) -> bool:
    """Whether this skill or guardrail fits the episode; a sticker by itself never does."""
    match experience.content:
        case Skill(procedure=procedure):
            return episode.success and _is_the_way(procedure, episode)
        case Guardrail() as rule:
            return bool(stopped(rule, episode))
    return False


def stopped(rule: Guardrail, episode: Trajectory) -> list[int]:
    """The steps that it would have stopped with good reason: they did not come off, or ended in failure."""
    return [
        index
        for index, step in enumerate(episode.steps)
        if step.meaning
        and not (episode.success and step.diagnosis.fine)
        and covers(rule, step.meaning, step.observation, episode.goal)
    ]


def _is_the_way(procedure: Sequence[str], episode: Trajectory) -> bool:
    fine = [step for step in episode.steps if step.diagnosis.fine and step.meaning]
    took = all(any(names(action, step, episode.goal) for step in fine) for action in procedure)
    return took and all(any(names(action, step, episode.goal) for action in procedure) for step in fine)
