"""Learning from use: a conversation that is over becomes a trajectory, judged by what followed on each reply.

A turn's reward is +1, 0 or -1 (`tutelage.agents.feedback`); the last turn, which nothing follows, has none. The
conversation is **solved** if its last clear signal is positive, **failed** if that is negative, and **unclear** if
there is none; an unclear one counts nowhere and feeds nothing. Within a solved one only turns with +1 are learned
from: one with -1 is an action that failed, with the correction as its evidence, and one with 0 had no effect that
anybody saw.

The trajectory is of the train split always, in the arm and family ``served``, with the origin ``live:KEY``: what it is
trusted for is `memory.trust.sources.live`, which is too little to be learned from unless the user raises it.
"""

import logging
import time
from collections.abc import Collection, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise

from tutelage.agents.feedback import Exchange, Signal, signals
from tutelage.agents.judge import judge_label
from tutelage.calls import CallError, parse_call
from tutelage.completion import AttemptFailed
from tutelage.conversation import read_turn, split_reply, turn_message
from tutelage.errors import BudgetSpent, TutelageError
from tutelage.progress import Reporter
from tutelage.record import Record
from tutelage.record_forgetting import FEEDBACK
from tutelage.redaction import Redactor
from tutelage.serving.assist import LONGEST_GOAL, seed_of, situation
from tutelage.serving.errors import sayable
from tutelage.serving.rendering import conversation
from tutelage.serving.sessions import TURN, Turn, drop_turns, key_of, open_turns
from tutelage.serving.types import ChatMessage
from tutelage.tools import meaning
from tutelage.types import (
    LIVE,
    SERVED,
    Cause,
    Diagnosis,
    Ending,
    Split,
    Step,
    Task,
    Trajectory,
    Verdict,
)
from tutelage.workspace import Workspace

_LOG = logging.getLogger(__name__)

REASONS = {
    Ending.SOLVED: "The last clear sign in what followed on the replies was good.",
    Ending.FAILED: "The last clear sign in what followed on the replies was bad.",
    Ending.UNCLEAR: "Nothing that followed on the replies says whether they were right.",
}


@dataclass(frozen=True)
class Settled:
    """What became of conversations."""

    trajectories: tuple[Trajectory, ...] = ()
    left: int = 0
    """Those that are over and could not be judged now; they stay for the next time."""
    unusable: tuple[str, ...] = ()
    """Sessions of those among them on which the judge gave no usable answer."""

    def count(self, ending: Ending) -> int:
        return sum(item.ending is ending for item in self.trajectories)

    def __str__(self) -> str:
        counts = [f"{self.count(ending)} {ending.value}" for ending in REASONS]
        left = f"; {self.left} could not be judged now" if self.left else ""
        return f"{len(self.trajectories)} conversations judged: {', '.join(counts)}{left}"


def settle(
    workspace: Workspace,
    now: float | None = None,
    *,
    everything: bool = False,
    without: Collection[str] = (),
    report: Reporter | None = None,
) -> Settled:
    """Judge the conversations that nobody has continued for `serve.learning.idle` seconds, and keep each as a
    trajectory.

    Args:
        now: seconds since 1970.
        everything: also those that are not idle yet.
        without: sessions that are left alone.
    """
    idle = 0.0 if everything else workspace.config.serve.learning.idle
    until = (time.time() if now is None else now) - idle
    due = [
        turns
        for session, turns in open_turns(workspace.record).items()
        if session not in without and turns[0].index == 0 and (everything or turns[-1].created.timestamp() <= until)
    ]
    if not due:
        return Settled()
    made, unusable = list[Trajectory](), list[str]()
    # Callers have tenants of their own, whoever the workspace's runs belong to.
    with closing(Record.open(workspace.folder, create=False)) as record:
        for place, turns in enumerate(due):
            try:
                found = _judged(workspace, turns)
            except TutelageError as error:
                if isinstance(error, BudgetSpent) or (isinstance(error, AttemptFailed) and error.failure.transient):
                    _LOG.warning("served conversations wait for their judge: %s", sayable(error))
                    left = len(unusable) + len(due) - place  # the next one would fare no better
                    return Settled(tuple(made), left, tuple(unusable))
                _LOG.warning("conversation %s cannot be judged: %s", turns[0].session, sayable(error))
                unusable.append(turns[0].session)
                continue
            kept = _keep(record, turns, *found)
            made += [kept] if kept is not None else []
            if report is not None:
                report("conversations judged", place + 1, len(due))
    return Settled(tuple(made), len(unusable), tuple(unusable))


def trajectory_of(turns: Sequence[Turn], found: Sequence[Signal], environment: str) -> Trajectory:
    """A conversation as an episode.

    Args:
        found: of each turn but the last.
    """
    first, last = turns[0], turns[-1]
    messages = [message for turn in turns for message in (*turn.came, turn.reply)]
    # A client may offer others from turn to turn, and every call has to be one that could be made.
    tools = tuple({tool.name: tool for turn in turns for tool in turn.tools}.values())
    spoken = conversation([*messages, ChatMessage("user", "(end)")], tools)[:-1]
    asked = [message.content for message in spoken[1::2]]
    goal, parsed = _parsed(asked)
    seen = parsed or asked
    known = [*found, *[Signal()] * (len(turns) - len(found))]
    steps = tuple(
        _step(
            turn, signal, seen[place], spoken[2 * place + 2].content, seen[place + 1] if place + 1 < len(seen) else ""
        )
        for place, (turn, signal) in enumerate(zip(turns, known, strict=True))
    )
    clear = [signal.reward for signal in found if signal.reward]
    students = list(dict.fromkeys(turn.student for turn in turns))
    return Trajectory(
        task=Task(environment=environment, family=SERVED, seed=seed_of(first.session), split=Split.TRAIN),
        goal=(goal or situation(first.came).goal)[:LONGEST_GOAL],
        system=spoken[0].content,
        tools=tools,
        policy=" → ".join(students),
        memory=any(turn.memory for turn in turns),
        shown=tuple({shown.id: shown for turn in turns for shown in turn.shown}.values()),
        steps=steps,
        reward=sum(clear) / len(clear) if clear else 0.0,
        ending=Ending.UNCLEAR if not clear else Ending.SOLVED if clear[-1] > 0 else Ending.FAILED,
        origin=f"{LIVE}:{first.caller}",
        tenant=first.tenant,
        plain=not parsed,
        created=last.created,
        seconds=(last.created - first.created).total_seconds(),
    )


# -- inside ---------------------------------------------------------------------------------------


def _judged(workspace: Workspace, turns: Sequence[Turn]) -> tuple[Trajectory, list[Signal], str]:
    """The trajectory, what was found of each turn but the last, and who judged."""
    llm, learning = workspace.llm("feedback"), workspace.config.serve.learning
    found = signals(_exchanges(turns), llm, votes=learning.votes)
    redactor = Redactor(learning.redact)
    found = [item.model_copy(update={"correction": redactor.text(item.correction)}) for item in found]
    label = judge_label(llm, 1 if llm.embedded else learning.votes)
    return trajectory_of(turns, found, workspace.config.serve.environment), found, f"{label}, by what came next"


def _keep(
    record: Record, turns: Sequence[Turn], item: Trajectory, found: Sequence[Signal], judge: str
) -> Trajectory | None:
    """In one transaction the turns become a trajectory; None if somebody has continued or closed the conversation."""
    session = turns[0].session
    with record.transaction():
        last = turns[-1]
        kept = record.get(TURN, last.key)
        if kept is None or Turn.model_validate(kept) != last or record.get(TURN, key_of(session, last.index + 1)):
            return None
        record.add_trajectory(item, key=f"{SERVED}/{session}", cycle=0, arm=SERVED)
        wrong = tuple(place for place, signal in enumerate(found) if signal.reward < 0)
        record.add_verdict(
            Verdict(trajectory=item.id, judge=judge, successful=item.success, reason=REASONS[item.ending], cited=wrong)
        )
        record.put(
            FEEDBACK,
            item.id,
            {
                "judge": judge,
                "signals": [signal.model_dump(mode="json") for signal in found],
                "students": [turn.student for turn in turns],
                "blocked": [list(turn.blocked) for turn in turns],
            },
        )
        drop_turns(record, session)
    return item


def _exchanges(turns: Sequence[Turn]) -> list[Exchange]:
    found = []
    for turn, following in pairwise(turns):
        said = "\n".join(message.content for message in following.came)
        asked = "\n".join(message.content for message in turn.came if message.role != "system")
        found.append(Exchange(asked, _reply(turn), said, "tool" if following.came[-1].role == "tool" else "user"))
    return found


def _reply(turn: Turn) -> str:
    """A reply as the student writes it, calls in our grammar."""
    spoken = conversation([ChatMessage("user", "(begin)"), turn.reply, ChatMessage("user", "(end)")])
    return spoken[2].content


def _step(turn: Turn, signal: Signal, observation: str, reply: str, after: str) -> Step:
    refused = turn.finish == "content_filter"
    thought, action = split_reply(reply) if _ends_in_call(reply) else ("", reply.strip())
    return Step(
        observation=observation,
        reply=reply,
        thought=thought,
        action=action,
        meaning=meaning(action),
        diagnosis=_diagnosis(signal, refused=refused, evidence=turn.reply.content),
        after=after,
        reward=float(signal.reward),
        blocked_by=turn.blocked[-1] if refused and turn.blocked else None,
    )


def _diagnosis(signal: Signal, *, refused: bool, evidence: str) -> Diagnosis:
    if refused:
        return Diagnosis(cause=Cause.BLOCKED, evidence=evidence)
    if signal.reward > 0:
        return Diagnosis(cause=Cause.PROGRESS)
    if signal.reward < 0:
        return Diagnosis(
            cause=Cause.ACTION_FAILED, evidence=signal.correction or "What came next says that this was wrong."
        )
    return Diagnosis(cause=Cause.NO_EFFECT, evidence="Nothing says whether this was right.")


def _ends_in_call(reply: str) -> bool:
    try:
        parse_call(split_reply(reply)[1])
    except CallError:
        return False
    return True


def _parsed(asked: Sequence[str]) -> tuple[str, list[str]]:
    """Goal and observations of a conversation whose messages are those of an episode; empty if they are not."""
    found = [read_turn(content) for content in asked]
    goal = found[0][0]
    if goal is None:
        return "", []
    for place, (content, (_, observation)) in enumerate(zip(asked, found, strict=True)):
        if turn_message(observation, goal=None if place else goal).content != content:
            return "", []
    return goal, [observation for _, observation in found]
