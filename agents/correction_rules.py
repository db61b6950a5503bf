"""How the embedded scripted expert puts a correction into words: by rule, from the text of the request alone."""

from tutelage.agents.transcripts import Turn, fenced, read_transcript
from tutelage.agents.views import ENDED
from tutelage.calls import Call, CallError, parse_call
from tutelage.types import Cause

LENGTH = 120
"""Characters of what the student wrote, quoted at most."""


def correct(text: str) -> dict[str, object]:
    """The corrector's reply."""
    _, turns = read_transcript(fenced("transcript", text), fenced("meanings", text))
    right = dict(line.partition(": ")[::2] for line in fenced("correction", text).split("\n"))
    action, meaning = right.get("Action", ""), right.get("Meaning", "")
    told = meaning in ("", action) or "({" in action  # a call to a tool has no references to explain
    due = action if told else f"{action}, that is {meaning}"
    return {"words": " ".join([*(_wrong(turn, action) for turn in turns[:1]), f"Right here is {due}."])}


def _wrong(turn: Turn, right: str) -> str:
    """One sentence on what was wrong with the student's action."""
    did, cause = _cut(turn.meaning or turn.action), turn.result.partition(" ")[0]
    if cause == Cause.INVALID_ACTION:
        return f"{_cut(turn.action) or 'Nothing'} is not an action here."
    if cause == Cause.UNKNOWN_TARGET:
        return f"{did} names nothing that is there."
    if cause == Cause.REPEATED:
        return f"{did} was done before."
    slip = _slip(turn.action, right)
    if slip:
        return f"{did} has the wrong {slip}."
    if cause == ENDED:
        return f"{did} ends the task, but something else is due first."
    return f"{did} is not what the goal asks for now."


def _slip(did: str, right: str) -> str:
    """What a call of the right kind got wrong; empty if it was of another kind."""
    try:
        one, other = parse_call(did), parse_call(right)
    except CallError:
        return ""
    if one.name != other.name or not one.args or not other.args:
        return ""
    if isinstance(one.args[0], dict) and isinstance(other.args[0], dict):
        return _arguments(one, other)
    return "target" if one.args[0] != other.args[0] else "text"


def _arguments(one: Call, other: Call) -> str:
    """Names of the arguments in which two calls to a tool differ."""
    mine, theirs = one.args[0], other.args[0]
    return " and ".join(name for name in {**theirs, **mine} if mine.get(name) != theirs.get(name))


def _cut(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LENGTH else line[: LENGTH - 3] + "..."
