"""The merger by rule, from the text of the request alone.

What can be told by rule about negations, limits and values is told before a merger is asked (`tutelage.memory`), so
there is little left: notes are the same whose lines are, but for case, spaces and final stops; the lines of a procedure
in their order, all others in any.
"""

import json
from typing import Any

from tutelage.agents.transcripts import fenced


def relate(text: str) -> dict[str, object]:
    first, second = (json.loads(line.partition(": ")[2]) for line in fenced("existing", text).split("\n"))
    same = _lines(first) == _lines(second)
    reason = "The lines are the same." if same else "They differ in words, and words are not for a rule to judge."
    return {"reason": reason, "relation": "same" if same else "different"}


def _lines(note: dict[str, Any]) -> dict[str, list[str]]:
    found = {}
    for name, value in note.items():
        part = value if isinstance(value, list) else [value]
        lines = [" ".join(line.casefold().split()).rstrip(".") for line in part]
        found[name] = lines if name == "procedure" else sorted(lines)
    return found
