"""An episode as one growing conversation.

The first user message holds the experiences (if any), the goal and the first observation; every later
one holds notes on the last action and the new observation. Nothing before the newest message ever
changes, so what is trained on is what was sampled and a cached prefix stays valid.
"""

from collections.abc import Sequence

from tutelage.types import Message, Shown, Trajectory


def split_reply(text: str) -> tuple[str, str]:
    """Thought and action of a reply: the last non-empty line is the action, what precedes it the thought."""
    lines = text.strip().split("\n")  # not splitlines: a value may hold other line separators
    return "\n".join(lines[:-1]).strip(), lines[-1].strip()


def join_reply(thought: str, action: str) -> str:
    return f"{thought}\n{action}" if thought else action


def turn_message(
    observation: str, notes: Sequence[str] = (), *, goal: str | None = None, shown: Sequence[Shown] = ()
) -> Message:
    """The user message of one turn; `goal` and `shown` belong to the first turn only."""
    parts = []
    if goal is not None:
        parts.append(f"Goal: {goal}")
    parts += [f"Note: {note}" for note in notes]
    parts.append(f"Observation:\n{observation}")
    return Message(role="user", content=with_experiences("\n".join(parts), shown))


def with_experiences(content: str, shown: Sequence[Shown]) -> str:
    """The first user message with experiences before all else that it says."""
    lines = [f"- {item.text}" for item in shown]
    return "\n".join(["Experience:", *lines, content]) if shown else content


def read_turn(content: str) -> tuple[str | None, str]:
    """Goal (None after the first turn) and observation of a `turn_message`.

    A page cannot pass for another part: the observation comes last and is everything after its heading.
    """
    head, _, observation = ("\n" + content).partition("\nObservation:\n")
    _, marker, goal = head.partition("\nGoal: ")
    return (goal.partition("\nNote: ")[0] if marker else None), observation


def conversation(trajectory: Trajectory, *, experiences: bool = True) -> tuple[Message, ...]:
    """All messages of a trajectory, as they were, or with the experiences stripped from the first one."""
    messages = [Message(role="system", content=trajectory.system)]
    for index, step in enumerate(trajectory.steps):
        first = index == 0
        shown = trajectory.shown if first and experiences else ()
        if trajectory.plain:
            said = Message(role="user", content=with_experiences(step.observation, shown))
        else:
            said = turn_message(step.observation, step.notes, goal=trajectory.goal if first else None, shown=shown)
        messages.append(said)
        messages.append(Message(role="assistant", content=step.reply))
    return tuple(messages)
