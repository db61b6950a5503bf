"""Light reads of experiences say what the experiences say, and uses count only what was really shown."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tutelage.experience import Experience, Skill, Source, Status, identity
from tutelage.record import Record
from tutelage.record_experiences import ExperienceRow, Uses
from tutelage.types import Ending, Shown, Split, Task, Trajectory


@pytest.fixture
def record(tmp_path: Path) -> Iterator[Record]:
    record = Record.open(tmp_path)
    yield record
    record.close()


def an_experience(name: str, version: int = 1, tenant: str = "default", tasks: int = 1) -> Experience:
    return Experience(
        id=f"exp_{name}",
        version=version,
        tenant=tenant,
        environment="toy",
        family="login",
        goal=f"goal {version}",
        content=Skill(preconditions=(), procedure=(f"click({name!r}, {version})",), verification=()),
        author="rules (scripted)",
        trust=0.5,
        status=Status.ACTIVE if version % 2 else Status.RETIRED,
        sources=tuple(Source(trajectory=f"trj_{n}", task=f"toy/login@{n}", steps=(0, 2)) for n in range(tasks)),
    )


def row_of(n: int, item: Experience) -> ExperienceRow:
    tasks = frozenset(source.task for source in item.sources)
    light = {name: getattr(item, name) for name in ExperienceRow._fields if hasattr(item, name)}
    return ExperienceRow(**{**light, "n": n, "identity": identity(item), "tasks": tasks})


saves = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from(["default", "other"]), st.integers(1, 3)), max_size=8
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(saves=saves, after=st.integers(0, 8), tenant=st.sampled_from([None, "default", "other"]))
def test_light_rows_say_what_the_newest_versions_say(
    tmp_path_factory: pytest.TempPathFactory, saves: list[tuple[str, str, int]], after: int, tenant: str | None
) -> None:
    record = Record.open(tmp_path_factory.mktemp("rows"))
    newest: dict[str, ExperienceRow] = {}
    for n, (name, owner, tasks) in enumerate(saves, start=1):
        key = f"{owner}-{name}"
        version = newest[key].version + 1 if key in newest else 1
        item = an_experience(key, version, owner, tasks)
        assert record.save_experience(item)
        assert record.newest() == (n, 0)
        newest[key] = row_of(n, item)
    expected = [row for row in newest.values() if row.n > after and tenant in (None, row.tenant)]
    assert record.experience_rows(after=after, tenant=tenant) == sorted(expected)
    record.close()


def test_uses_count_episodes_with_memory_that_did_not_break(record: Record) -> None:
    shown = (Shown(id="exp_a", version=1, text="t"), Shown(id="exp_b", version=2, text="t"))

    def play(ending: Ending, *, memory: bool, shown: tuple[Shown, ...], tenant: str = "default") -> None:
        task = Task(environment="toy", family="login", seed=0, split=Split.TRAIN)
        values = {"goal": "", "system": "", "policy": "p", "memory": memory, "shown": shown, "tenant": tenant}
        item = Trajectory.model_validate({"task": task, "ending": ending, **values})
        record.add_trajectory(item, key=item.id, cycle=0, arm="a")

    play(Ending.SOLVED, memory=True, shown=shown)
    play(Ending.FAILED, memory=True, shown=shown[:1])
    play(Ending.ENVIRONMENT_ERROR, memory=True, shown=shown[:1])
    play(Ending.POLICY_ERROR, memory=True, shown=shown[:1])
    play(Ending.SOLVED, memory=True, shown=())
    play(Ending.SOLVED, memory=False, shown=shown)
    play(Ending.SOLVED, memory=True, shown=shown[:1], tenant="other")
    assert record.uses() == {"exp_a": Uses(5, 3, 2), "exp_b": Uses(1, 1, 1)}
    assert record.uses("exp_a", tenant="default") == {"exp_a": Uses(4, 2, 1)}
    assert record.uses("exp_c") == {}
