"""What is shown shrinks in thirds, by measured effect; what does not help goes at once; guardrails are not enforced."""

from contextlib import closing

import pytest

from tutelage.config import EvidenceConfig
from tutelage.effects import Pair, effect
from tutelage.experience import Change, Experience, Guardrail, Recall, Skill, Source
from tutelage.measures import Measurement
from tutelage.record import Record
from tutelage.training.withdrawal import Shrinking, measured_gains, memory_at, phase, ranking
from tutelage.types import Shown, Split, Task


def a_skill(name, family="form", **changes):
    content = Skill(preconditions=(), procedure=(name,), verification=())
    source = Source(trajectory="", task="")
    return Experience(
        id=name,
        environment="toy",
        family=family,
        goal="g",
        content=content,
        sources=(source,),
        author="hand",
        **changes,
    )


RULE = a_skill("rule").model_copy(
    update={"content": Guardrail(trigger=(), root_cause="Never.", forbidden="*", remedy="Stop.")}
)


class Memory:
    """Recalls these, in every situation."""

    def __init__(self, *names):
        self.names = names

    def recall(self, task, goal, observation):
        return Recall(shown=tuple(Shown(id=n, version=1, text=n) for n in self.names), guardrails=(RULE,))


def shown(memory):
    task = Task(environment="toy", family="form", seed=1, split=Split.TRAIN)
    recall = memory.recall(task, "g", "o")
    assert not recall.guardrails
    return [item.id for item in recall.shown]


@pytest.mark.parametrize(
    ("batches", "shares"),
    [(1, [1]), (2, [1, 0.5]), (3, [1, 0.5, 0]), (6, [1, 1, 0.5, 0.5, 0, 0]), (10, [1] * 4 + [0.5] * 3 + [0] * 3)],
)
def test_thirds(batches, shares):
    assert [phase(batch, batches) for batch in range(batches)] == shares


def test_the_most_useful_stay_longest_and_what_does_not_help_goes_at_once():
    skills = [a_skill(name) for name in ("some", "harms", "most", "nothing", "new")]
    gains = {"some": 0.1, "harms": -0.2, "most": 0.4, "nothing": 0.0}
    ranked = ranking([*skills, RULE], gains)
    assert ranked == ["most", "some", "new"]
    memory = Memory("harms", "new", "some", "most", "nothing")
    first, half, none = (memory_at(memory, ranked, batch, 3) for batch in range(3))
    assert shown(first) == ["new", "some", "most"]
    assert shown(half) == ["some", "most"]
    assert none is None


def test_unmeasured_families_take_turns():
    skills = [a_skill("a1"), a_skill("a2"), a_skill("a3"), a_skill("b1", "press"), a_skill("b2", "press")]
    assert ranking(skills, {}) == ["a1", "b1", "a2", "b2", "a3"]


def test_without_withdrawal_all_is_shown_but_guardrails():
    memory = memory_at(Memory("harms", "some"), None, 2, 3)
    assert isinstance(memory, Shrinking)
    assert shown(memory) == ["harms", "some"]


def test_gains_are_those_of_the_newest_measurement_and_alone_before_among_others(tmp_path):
    def measured(name, place, *effects):
        return Measurement(
            name=name, cycle=1, place=place, student="s", pairs=8, item_pairs=0, families={}, effects=effects
        ).model_dump(mode="json")

    def found(item, won, lost, *, alone=False):
        pairs = [Pair(True, False, frozenset({item}))] * won + [Pair(False, True, frozenset({item}))] * lost
        return effect("toy/form", pairs, EvidenceConfig(), experience=item, alone=alone)

    imported = Change(by="import", numbers={"gain": 0.3})
    skills = [a_skill("a"), a_skill("b"), a_skill("c"), a_skill("d", change=imported)]
    with closing(Record.open(tmp_path)) as record:
        record.put("measurement", "1/evidence", measured("1/evidence", 0, found("a", 4, 0), found("b", 1, 3)))
        record.put(
            "measurement",
            "2/evidence",
            measured("2/evidence", 8, found("b", 3, 1, alone=True), found("b", 0, 4), found("c", 0, 0)),
        )
        assert measured_gains(record, skills) == {"a": 1.0, "b": 0.5, "d": 0.3}
