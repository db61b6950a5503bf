"""Whether something that was distilled only repeats what memory had shown to the agent.

An agent that was shown an experience tends to act by it and to say it again. Taken for a new finding, memory would
bear itself out, and fill up with its own echo; so it is dropped, and counted, where it is distilled.
"""

import re
from collections.abc import Iterable

from tutelage.experience import Content, Guardrail, Skill
from tutelage.types import Shown

STRETCH = 3
"""Words in a row that are compared."""
SHARE = 0.8
"""So much of each line must stand in what was shown."""

_WORD = re.compile(r"\w+|[^\w\s]")


def repeats(content: Content, shown: Iterable[Shown]) -> bool:
    """Whether what `content` comes to stands, nearly word for word, in one of the texts that were shown.

    Of a skill that is its procedure, of a sticker its conditions and question, of a guardrail what it forbids and the
    remedy. What goes further than what was shown, by a step or a condition, is no repetition.
    """
    lines = [words for line in _core(content) if (words := _words(line))]
    return bool(lines) and any(all(_stands(line, _words(item.text)) for line in lines) for item in shown)


def _core(content: Content) -> tuple[str, ...]:
    if isinstance(content, Skill):
        return content.procedure
    if isinstance(content, Guardrail):
        return content.forbidden, content.remedy
    return (*content.conditions, content.question)


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def _stands(line: list[str], text: list[str]) -> bool:
    """Whether nearly all stretches of a line are in the text; of a line shorter than a stretch, the line."""
    length = min(len(line), STRETCH)
    said, known = ([tuple(words[at : at + length]) for at in range(len(words) - length + 1)] for words in (line, text))
    return sum(stretch in known for stretch in said) >= SHARE * len(said)
