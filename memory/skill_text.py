"""The text of a SKILL.md: an experience as Markdown for agents and people, and back from what they made of it."""

from collections.abc import Sequence

from pydantic import ValidationError

from tutelage.errors import RecordError
from tutelage.experience import Content, Experience, Guardrail, Kind, Skill, Sticker

NOTATION = (
    "`{goal}` stands for a text that occurs in the goal, `{other}` for one that does not, other words in braces for "
    "values of the goal, `*` for anything."
)
DESCRIPTION = 1024
"""Characters that the format allows for a description."""
LONGEST = 4000
"""Characters of a procedure that was written elsewhere."""

HEADINGS: dict[Kind, dict[str, str]] = {
    "skill": {"When": "preconditions", "Procedure": "procedure", "Verification": "verification"},
    "sticker": {"Conditions": "conditions", "Question": "question"},
    "guardrail": {"When": "trigger", "Never": "forbidden", "Why": "root_cause", "Instead": "remedy"},
}
"""By kind, the fields of its content under the headings that they stand under, in order."""
CONTENTS: dict[Kind, type[Skill | Sticker | Guardrail]] = {"skill": Skill, "sticker": Sticker, "guardrail": Guardrail}
DETAIL = "Exact detail"
LISTS = frozenset({"preconditions", "procedure", "verification", "conditions", "trigger"})


def describe(experience: Experience) -> str:
    """One line that says what it is for and when to use it, as the format wants it."""
    what = {"skill": "How to", "sticker": "What to keep in mind", "guardrail": "What not to do"}[experience.kind]
    place = _line(f"For tasks of the family {experience.family} in {experience.environment}.")
    said = _line(experience.core or experience.goal)[: max(0, DESCRIPTION - len(what) - len(place) - 4)]
    stop = "" if said.endswith((".", "!", "?")) else "."
    return _line(f"{what}: {said}{stop} {place}")[:DESCRIPTION]


def body(experience: Experience) -> str:
    """The Markdown under the front matter."""
    parts = [f"# {_block(experience.goal) or experience.kind}"]
    for heading, field in HEADINGS[experience.kind].items():
        value = getattr(experience.content, field)
        numbered = field == "procedure"
        parts.append(
            f"## {heading}\n\n{_block(value) if isinstance(value, str) else _items(value, numbered)}".rstrip("\n")
        )
    if experience.verbatim:
        parts.append(f"## {DETAIL}\n\n{_block(experience.verbatim)}")
    parts.append(f"## Notation\n\n{NOTATION}")
    return "\n\n".join(parts) + "\n"


def parse(text: str, kind: Kind) -> tuple[str, Content, str]:
    """Goal, content and exact detail of a body that `body` wrote and someone may have changed.

    Raises:
        RecordError: what the kind needs is not under its headings.
    """
    goal, sections = _sections(text)
    data: dict[str, object] = {}
    for heading, field in HEADINGS[kind].items():
        lines = sections.get(heading, [])
        data[field] = _listed(lines) if field in LISTS else "\n".join(lines).strip()
    try:
        content = CONTENTS[kind].model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        heading = {field: name for name, field in HEADINGS[kind].items()}[str(first["loc"][0])]
        raise RecordError(f"below the heading {heading!r}: {first['msg']}") from error
    return goal, content, "\n".join(sections.get(DETAIL, [])).strip()


def foreign(text: str) -> Skill:
    """A body that was written elsewhere, as a skill: what it lists is the procedure, or else its paragraphs are.

    Raises:
        RecordError: it says nothing, or too much for a prompt.
    """
    _, sections = _sections(text)
    if HEADINGS["skill"].keys() <= sections.keys():
        _, content, _ = parse(text, "skill")
        assert isinstance(content, Skill)
        return content
    lines = [line for part in sections.values() for line in part]
    procedure = _listed(lines) or tuple(_line(part) for part in "\n".join(lines).split("\n\n") if part.strip())
    size = sum(map(len, procedure))
    if not size:
        raise RecordError("its text says nothing")
    if size > LONGEST:
        raise RecordError(f"its steps have {size} characters; more than {LONGEST} do not fit into a prompt")
    return Skill(preconditions=(), procedure=procedure, verification=())


def _sections(text: str) -> tuple[str, dict[str, list[str]]]:
    """The title, and the lines under each heading; those before the first one under an empty name."""
    title = current = ""
    sections: dict[str, list[str]] = {"": []}
    for line in text.split("\n"):
        if line.startswith("# ") and not title:
            title = line[2:].strip()
        elif line.startswith("## "):
            current = line[3:].strip()
            sections.setdefault(current, [])
        else:
            sections[current].append(line)
    return title, sections


def _items(values: Sequence[str], numbered: bool) -> str:
    marks = [f"{n}. " if numbered else "- " for n in range(1, len(values) + 1)]
    return "\n".join(mark + value.replace("\n", "\n    ") for mark, value in zip(marks, values, strict=True))


def _listed(lines: Sequence[str]) -> tuple[str, ...]:
    """The items of the lists among these lines; indented lines go on with the item before them."""
    items: list[str] = []
    for line in lines:
        mark, _, rest = line.partition(" ")
        if mark in ("-", "*", "+") or (mark[:-1].isdigit() and mark[-1] in ".)"):
            items.append(rest)
        elif items and line.startswith("    "):
            items[-1] += "\n" + line[4:]
    return tuple(items)


def _block(text: str) -> str:
    return text.strip()


def _line(text: str) -> str:
    """On one line, without what some readers take for the end of the front matter."""
    line = " ".join(text.split())
    while "---" in line:
        line = line.replace("---", "—")
    return line
