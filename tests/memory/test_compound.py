"""The compound form says nothing that the source does not, and making it again changes nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.experience import Experience, Guardrail, Scope, Skill, Source, Sticker
from tutelage.memory.compound import LONGEST_CORE, compound, touched
from tutelage.memory.text import SOURCES, gist, verbatim
from tutelage.types import Cause, Diagnosis, Ending, Split, Step, Task, Trajectory

SKILL = Skill(
    preconditions=("The page has a textbox.",),
    procedure=('fill(textbox "Name", "{goal}")', 'click(button "Submit")'),
    verification=(),
)


def _episode(goal: str, *meanings: str, observation: str = "Top folder:\nnotes.txt") -> Trajectory:
    return Trajectory(
        task=Task(environment="files", family="copy", seed=1, split=Split.TRAIN),
        goal=goal,
        system="",
        policy="expert/files (scripted)",
        memory=False,
        steps=tuple(
            Step(
                observation=observation,
                reply=meaning,
                action=meaning,
                meaning=meaning,
                diagnosis=Diagnosis(cause=Cause.PROGRESS),
                after="Done.",
            )
            for meaning in meanings
        ),
        ending=Ending.SOLVED,
    )


def _drawn(source: Trajectory | None, content: object = SKILL, steps: tuple[int, ...] = (), **changes: object):  # type: ignore[no-untyped-def]
    origin = {} if source else {"origin": "user:ann"}
    where = Source(trajectory=source.id if source else "", task="", steps=steps, **origin)
    values = {"environment": "files", "family": "copy", "goal": "Copy {file}.", "author": "ann", "sources": (where,)}
    return Experience.model_validate({**values, "content": content, **changes})


COPY = _episode(
    'Copy "work/sales.dat" to https://example.org/in?x=1.',
    'copy(source="work/sales.dat", target="/srv/in/sales.dat")',
    'click(button "Submit")',
    "done()",
    observation="Top folder:\nsecret.txt",
)


def test_scopes_and_what_was_touched_come_from_the_cited_steps() -> None:
    made = compound(_drawn(COPY, steps=(0, 1)), COPY)
    assert made.touched == ("https://example.org/in?x=1", "work/sales.dat", "/srv/in/sales.dat")
    found = [(scope.type, scope.key, scope.relevance) for scope in made.scopes]
    assert found == [
        ("workflow", "files/copy", 1.0),
        ("tool", "copy", 0.5),
        ("tool", "click", 0.5),
        ("concept", "button", 0.5),
        ("file", "/srv/in/sales.dat", 0.5),
        ("file", "work/sales.dat", 0.5),
    ]
    assert made.scopes[-1].label == "sales.dat"


@pytest.mark.parametrize(
    ("wanted", "kept"),
    [
        ("secret.txt", "secret.txt"),  # in the observation
        ('click(button\n "Submit")', 'click(button "Submit")'),
        ("a detail that was made up", COPY.goal),
        ("", COPY.goal),
    ],
)
def test_the_verbatim_detail_stands_in_the_source(wanted: str, kept: str) -> None:
    assert compound(_drawn(COPY, verbatim=wanted), COPY).verbatim == kept


def test_the_core_is_made_of_the_experiences_own_words() -> None:
    rule = Guardrail(trigger=("*",), root_cause="r", forbidden='click(button "Submit")', remedy="Do fill() first.")
    sticker = Sticker(conditions=("The goal reads: Copy {file}.", "The page has a list."), question="Which one?")
    cores = [compound(_drawn(None, content), None).core for content in (SKILL, rule, sticker)]
    assert cores == [
        'Copy {file}: fill(textbox "Name", "{goal}"); click(button "Submit").',
        'Copy {file}: never click(button "Submit"). Do fill() first.',
        "Copy {file}. The page has a list.",
    ]
    long = Skill(preconditions=(), procedure=tuple(f"press(key {n})" for n in range(99)), verification=())
    assert len(compound(_drawn(None, long), None).core) <= LONGEST_CORE


def test_what_a_distiller_wrote_is_kept() -> None:
    written = {"core": "Copies a file.", "scopes": (Scope(type="concept", key="copying"),), "touched": ("a.txt",)}
    assert compound(item := _drawn(COPY, **written), COPY) is item
    kept = compound(_drawn(COPY, core="Copies a file.", touched=("a.txt",)), COPY)
    assert (kept.core, kept.touched) == ("Copies a file.", ("a.txt",))


@given(st.lists(st.text(max_size=60), min_size=1, max_size=4), st.text(max_size=60), st.text(max_size=30))
def test_made_again_with_or_without_the_source_it_stays_the_same(meanings: list[str], goal: str, wanted: str) -> None:
    source = _episode(goal, *meanings)
    for known in (source, None):
        once = compound(_drawn(source, verbatim=wanted, goal=goal), known)
        assert compound(once, source) == once == compound(once, None)
        assert once.content == SKILL
        if known and once.verbatim:
            said = " ".join(once.verbatim.rstrip("…").split())
            assert any(said in " ".join(text.split()) for text in (goal, *meanings, source.first_observation, "Done."))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('open "a/b-c/report.v2.md", then notes.txt.', ["a/b-c/report.v2.md", "notes.txt"]),
        ("see (https://x.org/a.html), or http://y.org.", ["https://x.org/a.html", "http://y.org"]),
        ("mail ann@example.org on 05/20/2010 at 3.15, e.g. now, and/or 1.5kg", []),
        ("/etc/passwd and /srv/a.b/c but not / or /x", ["/etc/passwd", "/srv/a.b/c"]),
        ("Vel quis varius. Semper.", []),
        ("notes.txt notes.txt", ["notes.txt"]),
    ],
)
def test_files_and_addresses_are_found_by_pattern(text: str, found: list[str]) -> None:
    assert touched([text]) == found


def test_keywords_cover_the_first_sources_and_vectors_the_compound_form() -> None:
    others = [_episode(f"Copy number{n}.", f'copy(source="f{n}")', "done()") for n in range(SOURCES + 1)]
    sources = tuple(Source(trajectory=item.id, task="", steps=(0,)) for item in others)
    made = compound(_drawn(others[0], sources=sources), others[0])
    words = verbatim(made, {item.id: item for item in others})
    assert all(f"number{n}." in words and f'"f{n}"' in words for n in range(SOURCES))
    assert f"number{SOURCES}." not in words  # too many sources
    assert "done()" not in words  # not a step it rests on
    assert gist(made).splitlines() == [made.core, "Copy number0.", "files copy", "copy"]
    assert verbatim(made, {}).splitlines() == ["Copy number0.", "files copy", "copy"]
