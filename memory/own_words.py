"""An experience told again in words of our own, for sources that are not trusted.

What stays of the words of a page, a tool, a file or a stranger's goal is what says nothing by itself: slots, roles,
values of attributes, common names of controls and tools (`memory.vocabulary`), and claims of a few fixed forms about
goal and page. Everything else becomes ``*`` or ``{other}``, or is left out; a reason is replaced by the enumerated
diagnosis of the step it rests on. So nobody's sentence survives, in whatever words it was put, and none has to be
recognised as an order.
"""

import re
from collections.abc import Callable, Collection, Iterable, Sequence

from tutelage.experience import Content, Experience, Guardrail, Skill, Sticker
from tutelage.memory.masking import (
    CALLED,
    CAUSES,
    INCOMPLETE,
    MAX_TARGETS,
    NO_CALL,
    READS,
    SLOT,
    STRING,
    claims,
    masked,
    masked_action,
    masked_goal,
    masked_trigger,
)
from tutelage.memory.vocabulary import PAGE_VERBS, ROLES, known, known_name
from tutelage.patterns import ANY, GOAL, OTHER, matches, occurs
from tutelage.tools import names
from tutelage.types import FINE, LIVE, Step, Trajectory

QUESTION = "Which actions fulfil the goal?"
NO_MISTAKE = "neither its sources nor solved tasks of its family show a mistake that it would have stopped"
THE_GOAL = "The goal"
"""What begins a claim about nothing but the request."""
UNKNOWN_CAUSE = "It did not lead to the goal."


def in_own_words(
    experience: Experience,
    sources: Sequence[Trajectory],
    offered: Collection[str] = (),
    solved: Callable[[], Iterable[Trajectory]] = tuple,
) -> tuple[Experience | None, str]:
    """The experience with nothing in it that somebody else put into words, and why there is none if nothing is left.

    What cannot be told as what it is, such as a rule that would be wider without its words, becomes a sticker that says
    what its sources show. A guardrail against what is no mistake in them becomes nothing.

    Args:
        sources: those of its source trajectories that are known; none for what was written by hand or imported. Where
            there are any, an action must have been taken in one of them, with an effect.
        offered: names of tools and arguments that the environment lists for whoever acts there (`names_offered`).
        solved: successful episodes of its family, looked at where a guardrail's own sources show no mistake.
    """
    offered = {*offered, *names_offered(sources)}
    content, reason = _content(experience.content, experience, sources, offered)
    if reason == NO_MISTAKE:
        sources = [*sources, *solved()]
        content, reason = _content(experience.content, experience, sources, offered)
    if content is None and reason != NO_MISTAKE:
        content = _advice(experience, sources, offered)
    if content is not None and any(item.origin.partition(":")[0] == LIVE for item in experience.sources):
        content, reason = _beyond_request(content, offered)
    if content is None:
        return None, reason
    update = {
        "content": content,
        "goal": masked_goal(experience.goal),
        "core": "",
        "scopes": (),
        "touched": (),
        "verbatim": masked_action(experience.verbatim, (), offered=offered) if content.kind == experience.kind else "",
        "author": masked(experience.author) if any(item.origin != "own" for item in experience.sources) else None,
    }
    kept = {name: value for name, value in update.items() if value is not None}
    return experience.model_copy(update=kept), ""


def names_offered(trajectories: Iterable[Trajectory]) -> frozenset[str]:
    """Names of the tools, and of their arguments, that were offered in these episodes: whoever acts in their
    environment reads them anyway, so that repeating one tells nothing new. Not those of served conversations, which
    their callers have named."""
    return names(tool for trajectory in trajectories if not trajectory.live for tool in trajectory.tools)


# -- the three kinds ----------------------------------------------------------------------------


def _content(
    content: Content, item: Experience, sources: Sequence[Trajectory], offered: Collection[str]
) -> tuple[Content | None, str]:
    match content:
        case Skill():
            return _skill(content, sources, offered)
        case Sticker():
            conditions = tuple(claims(content.conditions, offered))
            if content.question == QUESTION and conditions == content.conditions:
                return content, ""
            told = _sticker(conditions, item.goal, sources, offered)
            return told, "" if told else "nothing of it can be told without the words of a source that is not trusted"
        case Guardrail():
            return _guardrail(content, sources, offered)


def _skill(skill: Skill, sources: Sequence[Trajectory], offered: Collection[str]) -> tuple[Skill | None, str]:
    goals = [source.goal for source in sources]
    taken = [action for action in skill.procedure if not sources or _taken(action, sources)]
    procedure = [told for action in taken if (told := masked_action(action, goals, offered=offered))]
    if not procedure:
        return None, "nothing of its procedure can be told without the words of a source that is not trusted"
    left_out = (INCOMPLETE,) if len(procedure) < len(skill.procedure) else ()
    return Skill(
        preconditions=tuple(dict.fromkeys((*claims(skill.preconditions, offered), *left_out))),
        procedure=tuple(procedure),
        verification=tuple(claims(skill.verification, offered)),
    ), ""


def _sticker(
    claimed: Iterable[str], goal: str, sources: Sequence[Trajectory], offered: Collection[str]
) -> Sticker | None:
    """What is claimed, with what goal and sources show by themselves."""
    conditions = list(claimed)
    reads = masked_goal(goal)
    if sum(map(known, re.findall(r"[A-Za-z]+", SLOT.sub("", reads)))) > 1:
        conditions.insert(0, f"{READS}{reads}")
    conditions += [f"The page has a {target}." for target in list(dict.fromkeys(_targets(sources)))[:MAX_TARGETS]]
    tools = list(dict.fromkeys(_tools(sources, offered)))[:MAX_TARGETS]
    conditions += [f"{CALLED}{', '.join(tools)}."] if tools else []
    if not conditions:
        return None
    if not any(condition.startswith(THE_GOAL) for condition in conditions) and SLOT.search(goal):
        conditions.insert(0, f"The goal names {_count(goal)}.")
    return Sticker(conditions=tuple(dict.fromkeys(conditions)), question=QUESTION)


def _guardrail(
    rule: Guardrail, sources: Sequence[Trajectory], offered: Collection[str]
) -> tuple[Guardrail | None, str]:
    goals = [source.goal for source in sources]
    forbidden = masked_action(rule.forbidden, goals, exactly=True, offered=offered)
    if not forbidden:
        return None, "what it forbids cannot be told without the words of a source that is not trusted"
    trigger = tuple(masked_trigger(pattern) for pattern in rule.trigger)
    if any(not told.strip("* .:") and pattern.strip("* ") for told, pattern in zip(trigger, rule.trigger, strict=True)):
        return None, "in other words it would apply to more situations"
    trigger = tuple(dict.fromkeys(pattern for pattern in trigger if pattern.strip("* .:")))
    if not trigger and not _narrow(forbidden):
        return None, "it forbids an action whatever the situation, and its source is not trusted"
    made = Guardrail(
        trigger=trigger, root_cause=UNKNOWN_CAUSE, forbidden=forbidden, remedy=_remedy(rule, trigger, offered)
    )
    steps = [(step, source.goal) for source in sources for step in source.steps if stops(made, step, source.goal)]
    if sources and not any(step.diagnosis.cause in CAUSES for step, _ in steps):
        return None, NO_MISTAKE
    if any(step.diagnosis.fine for step, _ in steps):
        return None, "in other words it would stop a right step of its own sources"
    causes = [CAUSES[step.diagnosis.cause] for step, _ in steps if step.diagnosis.cause in CAUSES]
    ours = rule.root_cause in (*CAUSES.values(), UNKNOWN_CAUSE)
    told = rule.root_cause if ours else next(iter(claims([rule.root_cause], offered)), "")
    root = told or (causes[0] if causes else UNKNOWN_CAUSE)
    return made.model_copy(update={"root_cause": root}), ""


def _remedy(rule: Guardrail, trigger: Sequence[str], offered: Collection[str]) -> str:
    kept = next((claim for claim in claims([rule.remedy], offered) if claim.startswith("Do ")), "")
    if kept:
        return kept
    empty = next((line for line in trigger if 'value=""' in line or "checked=false" in line), "")
    if empty:
        return f"Set this before: {empty.strip('* ')}"
    return "Look at what is there before." if NO_CALL in trigger else "Do something else."


def _beyond_request(content: Content, offered: Collection[str]) -> tuple[Content | None, str]:
    """Of what a served conversation gave, that which is more than its caller's request and tools, told to others."""
    match content:
        case Sticker(conditions=conditions):
            conditions = tuple(
                line for line in conditions if not line.startswith(CALLED) or _all_offered(line, offered)
            )
            told = any(not line.startswith(THE_GOAL) for line in conditions)
            content = content.model_copy(update={"conditions": conditions})
        case Skill(preconditions=conditions, procedure=procedure):
            verbs = {action.partition("(")[0] for action in procedure}
            told = verbs <= {*PAGE_VERBS, *offered} and any(line != INCOMPLETE for line in conditions)
        case Guardrail():
            told = True
    return (content, "") if told else (None, "nothing of it can be told but what a caller asked for")


def _all_offered(called: str, offered: Collection[str]) -> bool:
    return set(called.removeprefix(CALLED).removesuffix(".").split(", ")) <= set(offered)


def _advice(item: Experience, sources: Sequence[Trajectory], offered: Collection[str]) -> Sticker | None:
    """What its sources show of it: which action did not work and why, or what such tasks are done with."""
    match item.content:
        case Guardrail() as rule:
            failed = (
                (_unnamed(masked_action(step.meaning, [source.goal], offered=offered)), CAUSES[step.diagnosis.cause])
                for source in sources
                for step in source.steps
                if step.diagnosis.cause in CAUSES and stops(rule, step, source.goal)
            )
            told = next((f"{action} did not work here: {cause}" for action, cause in failed if action), "")
            return Sticker(conditions=(told,), question=QUESTION) if told else None
        case Skill(procedure=procedure):
            if not sources or not any(_taken(action, sources) for action in procedure):
                return None
            return _sticker((), item.goal, sources, offered)
        case Sticker():
            return None


# -- small parts --------------------------------------------------------------------------------


def _count(goal: str) -> str:
    count = len(SLOT.findall(goal))
    return f"{count} value{'s' if count > 1 else ''}"


def _targets(sources: Sequence[Trajectory]) -> Iterable[str]:
    """What was acted upon with an effect, by role and masked name."""
    for source in sources:
        for step in source.steps:
            match = re.match(rf"\w+\(([a-z]+)(?: ({STRING}))?[,)]", step.meaning) if step.diagnosis.fine else None
            if match and match[1] in ROLES:
                name = match[2][1:-1] if match[2] else ""
                shown = GOAL if name and occurs(name, source.goal) else masked(name)
                yield f'{match[1]} "{shown}"' if name else match[1]


def _tools(sources: Sequence[Trajectory], offered: Collection[str]) -> Iterable[str]:
    """The tools that were called with an effect and whose names may be repeated."""
    for source in sources:
        for step in source.steps:
            name = step.meaning.partition("(")[0]
            if step.diagnosis.fine and name not in PAGE_VERBS and known_name(name, offered=offered):
                values = (match[1:-1] for match in re.findall(STRING, step.meaning))
                if known_name(name) or any(value and occurs(value, source.goal) for value in values):
                    yield name


def _taken(action: str, sources: Sequence[Trajectory]) -> bool:
    verb = action.partition("(")[0]
    return any(
        step.diagnosis.cause in FINE
        and step.meaning.partition("(")[0] == verb
        and (action == step.meaning or matches(action, step.meaning, source.goal))
        for source in sources
        for step in source.steps
    )


def _unnamed(action: str) -> str:
    """The action without names: a stranger who makes the right control fail once would have it shunned."""
    return re.sub(STRING, lambda match: match[0] if match[0][1:-1] in ("", GOAL, OTHER) else f'"{ANY}"', action)


def _narrow(forbidden: str) -> bool:
    """Whether a pattern covers less than all uses of its verb on a thing."""
    return OTHER in forbidden or '"*' in forbidden.replace('"*"', "")


def stops(rule: Guardrail, step: Step, goal: str) -> bool:
    """As `tutelage.agents.guard` reads a rule, which memory does not import."""
    if not step.meaning or not matches(rule.forbidden, step.meaning, goal):
        return False
    lines = [line.strip() for line in step.observation.splitlines()]
    return all(
        any(matches(pattern.removeprefix("not "), line, goal) for line in lines) is not pattern.startswith("not ")
        for pattern in rule.trigger
    )
