"""Experiences as Agent Skills: valid for other agents, lossless for us, and editable as what they are, Markdown."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from skills_ref.validator import validate

from tutelage.errors import RecordError
from tutelage.experience import Content, Experience, Guardrail, Skill, Source, Status, Sticker
from tutelage.memory.files import History
from tutelage.memory.skill_folders import Place, read_folders, write_folders
from tutelage.memory.skill_text import body, parse

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.sampled_from(
    ["---", "a: b", "# heading", "- item", "<b>", '"', "two\nlines", "\r\n", "x" * 3000, "yes", "2026-01-01"]
)
TEXTS = st.lists(TEXT, max_size=3).map(tuple)
SOME = st.lists(TEXT, min_size=1, max_size=3).map(tuple)
CONTENTS = st.one_of(
    st.builds(Sticker, conditions=SOME, question=TEXT),
    st.builds(Skill, preconditions=TEXTS, procedure=SOME, verification=TEXTS),
    st.builds(Guardrail, trigger=TEXTS, root_cause=TEXT, forbidden=TEXT, remedy=TEXT),
)
FIELDS = {"environment": TEXT, "family": TEXT, "goal": TEXT, "content": CONTENTS, "core": TEXT, "verbatim": TEXT}
MANY = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))


def an_experience(content: Content | None = None, **changes: object) -> Experience:
    skill = Skill(
        preconditions=("The page has a form.",),
        procedure=('fill(textbox "User", "{goal}")', 'click(button "Log in")'),
        verification=("The page says welcome.",),
    )
    values = {
        "environment": "toy",
        "family": "login-user",
        "goal": 'Log in as "{user}"',
        "content": content or skill,
        "sources": (Source(trajectory="trj_1", task="toy/login-user@1", steps=(0, 1)),),
        "status": Status.ACTIVE,
        "author": "rules",
        "verbatim": "error XJ9-7741",
    }
    return Experience.model_validate({**values, **changes})


@MANY
@given(st.lists(st.fixed_dictionaries(FIELDS), min_size=1, max_size=3), st.integers(1, 3))
def test_anything_comes_back_as_it_was_and_is_a_valid_skill(
    tmp_path_factory: pytest.TempPathFactory, fields: list[dict[str, object]], versions: int
) -> None:
    folder = tmp_path_factory.mktemp("skills")
    histories: list[History] = []
    for values in fields:
        first = an_experience(**values)
        histories.append(tuple(first.model_copy(update={"version": n}) for n in range(1, versions + 1)))
    paths = write_folders(histories, folder)
    assert sorted(read_folders(folder, "import:x"), key=lambda history: history[0].id) == sorted(
        histories, key=lambda history: history[0].id
    )
    assert [validate(path) for path in paths] == [[]] * len(paths)
    assert sorted(path.name for path in folder.iterdir()) == sorted(path.name for path in paths), "nothing left over"


@MANY
@given(CONTENTS, st.text('ab {}"#-.*', max_size=20))
def test_the_markdown_says_what_the_experience_says(content: Content, goal: str) -> None:
    item = an_experience(content, goal=goal)
    heard_goal, heard, _ = parse(body(item), item.kind)
    lines = [text for field in content.model_dump().values() for text in ([field] if isinstance(field, str) else field)]
    if all(line == line.strip() != "" and "\n" not in line and "## " not in line for line in [*lines, goal]):
        assert (heard, heard_goal) == (content, goal)


def test_a_changed_skill_file_is_one_more_version(tmp_path: Path) -> None:
    item = an_experience()
    (path,) = write_folders([(item,)], tmp_path)
    file = path / "SKILL.md"
    text = file.read_text()
    file.write_text(text.replace('click(button "Log in")', 'press("Enter")').replace("# Log in as", "# Sign in as"))
    ((old, new),) = read_folders(tmp_path, "import:friend")
    assert old == item
    assert (new.version, new.goal, new.verbatim) == (2, 'Sign in as "{user}"', item.verbatim)
    assert new.content == item.content.model_copy(
        update={"procedure": ('fill(textbox "User", "{goal}")', 'press("Enter")')}
    )
    assert new.sources == (*item.sources, Source(trajectory="", task="", origin="import:friend"))
    assert (new.change.by, new.change.reason) == ("import:friend", "goal, content changed in SKILL.md")
    # Line endings and a new description are no change of the steps.
    file.write_bytes(text.replace("description: 'How to:", "description: 'The way to:").replace("\n", "\r\n").encode())
    ((_, new),) = read_folders(path, "import:friend")
    assert (new.content, new.core[:11]) == (item.content, "The way to:")


def test_a_change_that_markdown_would_spoil_is_refused(tmp_path: Path) -> None:
    (path,) = write_folders([(an_experience(Sticker(conditions=("a ",), question="q")),)], tmp_path)
    file = path / "SKILL.md"
    file.write_text(file.read_text().replace("## Question\n\nq", "## Question\n\nr"))
    ((_, new),) = read_folders(tmp_path, "import:x")
    assert new.content == Sticker(conditions=("a ",), question="r")
    (path,) = write_folders(
        [(an_experience(Sticker(conditions=("c",), question="q\n## Conditions\n- d")),)], tmp_path / "b"
    )
    file = path / "SKILL.md"
    file.write_text(file.read_text() + "\n- more\n")
    assert len(read_folders(path, "import:x")[0]) == 1, "what is no field is nobody's change"
    file.write_text(file.read_text().replace("q\n", "r\n"))
    with pytest.raises(RecordError, match="Markdown cannot carry its content"):
        read_folders(path, "import:x")


FOREIGN = """---
name: pdf-forms
description: Fills in PDF forms. Use when the user asks to complete a form.
license: Apache-2.0
---

# PDF forms

Read the form first.

## Steps

1. List its fields
2. Fill each field
"""


def test_a_skill_from_elsewhere_becomes_one_of_ours(tmp_path: Path) -> None:
    path = tmp_path / "pdf-forms"
    path.mkdir()
    (path / "SKILL.md").write_text(FOREIGN)
    with pytest.raises(RecordError, match="names no environment and family"):
        read_folders(tmp_path, "import:friend")
    ((item,),) = read_folders(tmp_path, "import:friend", Place("toy", "forms"))
    assert item.content == Skill(preconditions=(), procedure=("List its fields", "Fill each field"), verification=())
    assert (item.environment, item.family, item.status) == ("toy", "forms", Status.CANDIDATE)
    assert item.goal == "Fills in PDF forms. Use when the user asks to complete a form."
    assert item.sources[0].origin == "import:friend"
    assert read_folders(path, "import:friend", Place("toy", "forms"))[0][0].id == item.id, "the same each time"
    (path / "SKILL.md").write_text(FOREIGN.split("## Steps")[0])
    ((prose,),) = read_folders(tmp_path, "import:friend", Place("toy", "forms"))
    assert prose.content == Skill(preconditions=(), procedure=("Read the form first.",), verification=())


def test_our_skill_file_alone_still_says_what_it_is(tmp_path: Path) -> None:
    rule = Guardrail(
        trigger=('link "{goal}"',), root_cause="wrong one", forbidden='click(link "{other}")', remedy="look"
    )
    (path,) = write_folders([(an_experience(rule),)], tmp_path)
    (path / "references" / "history.jsonl").unlink()
    ((item,),) = read_folders(tmp_path, "import:x")
    assert (item.content, item.environment, item.family) == (rule, "toy", "login-user")
    assert item.verbatim == "error XJ9-7741"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("no front matter", "no front matter"),
        ("---\nname: [\n---\nx", "not YAML"),
        ("---\nname: x\n---\nx", "gives no description"),
        ("---\nname: x\ndescription: 2026-01-01\n---\nx", "gives no description"),
        ("---\nname: x\ndescription: d\n---\n", "says nothing"),
        ("---\nname: x\ndescription: d\n---\n" + "long " * 2000, "do not fit into a prompt"),
        ("---\nname: x\ndescription: d\nmetadata: {tutelage-kind: sticker}\n---\n# g\n", "heading 'Conditions'"),
        ("---\nname: " + "[" * 5000 + "\n---\nx", "not YAML"),
        ("x" * 1_000_001, "larger than"),
    ],
)
def test_what_is_no_skill_is_named(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "x"
    path.mkdir()
    (path / "SKILL.md").write_text(text)
    with pytest.raises(RecordError, match=problem):
        read_folders(tmp_path, "import:x", Place("toy", "forms"))


def test_links_out_of_the_folder_are_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(FOREIGN)
    path = tmp_path / "skills" / "linked"
    path.mkdir(parents=True)
    os.symlink(secret, path / "SKILL.md")
    with pytest.raises(RecordError, match="is a link"):
        read_folders(tmp_path / "skills", "import:x", Place("toy", "forms"))
    with pytest.raises(RecordError, match=r"holds no SKILL\.md"):
        read_folders(tmp_path, "import:x")
