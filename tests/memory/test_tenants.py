"""Two tenants on one record: whatever both do, neither ever sees or changes anything of the other's."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, multiple, rule, run_state_machine_as_test

from tutelage.config import MemoryConfig
from tutelage.errors import RecordError
from tutelage.experience import Change, Experience, Guardrail, Recall, Skill, Source, Status, Sticker
from tutelage.memory.query import Query
from tutelage.memory.store import MemoryStore
from tutelage.record import Record
from tutelage.types import Cause, Diagnosis, Ending, Split, Step, Task, Trajectory

TENANTS = ("ann", "bob")
WORDS = ("open", "door", "feed", "cat", "count", "money")
TENANT = st.sampled_from(TENANTS)
SUBJECT = st.sampled_from(WORDS)
SEED = st.integers(0, 2)


def a_trajectory(tenant: str, seed: int) -> Trajectory:
    step = Step(
        observation="[r1] button",
        reply='click("r1")',
        action='click("r1")',
        meaning=f"click({tenant})",
        diagnosis=Diagnosis(cause=Cause.PROGRESS),
        after="",
    )
    return Trajectory(
        id=f"trj_{tenant}{seed}",
        task=Task(environment="toy", family="f", seed=seed, split=Split.TRAIN),
        goal=f"the goal of {tenant}",
        system="",
        policy="expert/toy (scripted)",
        memory=False,
        steps=(step,),
        ending=Ending.SOLVED,
        tenant=tenant,
    )


def an_experience(tenant: str, trajectory: str, kind: str, subject: str, **changes: Any) -> Experience:
    text = f"{subject} of {tenant}"
    contents = {
        "skill": Skill(preconditions=(), procedure=(f"say({text!r})",), verification=()),
        "sticker": Sticker(conditions=(text,), question="what now?"),
        "guardrail": Guardrail(trigger=(), root_cause="c", forbidden=f"say({text!r})", remedy="do not"),
    }
    values = {
        "tenant": tenant,
        "environment": "toy",
        "family": "f",
        "goal": text,
        "content": contents[kind],
        "sources": (Source(trajectory=trajectory, task="toy/f@0", steps=(0,)),),
        "status": Status.ACTIVE,
        "author": "rules (scripted)",
    }
    return Experience.model_validate({**values, **changes})


class TwoTenants(RuleBasedStateMachine):
    """Every id that anyone has may be tried by anyone."""

    ids = Bundle("ids")

    @initialize(target=ids)
    def begin(self) -> Any:
        self.folder = Path(tempfile.mkdtemp())
        self.record = Record.open(self.folder)
        for tenant in TENANTS:
            for seed in range(3):
                trajectory = a_trajectory(tenant, seed)
                self.record.add_trajectory(trajectory, key=trajectory.id, cycle=1, arm="teacher")
        self.stores = {name: self.opened(name) for name in TENANTS}
        self.owned: dict[str, set[str]] = {name: set() for name in TENANTS}
        for name, other in (TENANTS, TENANTS[::-1]):
            self.add(name, other, 1, "sticker", "cat")
        return multiple(*(self.add(name, name, 0, kind, "door") for name in TENANTS for kind in ("skill", "guardrail")))

    def opened(self, tenant: str) -> MemoryStore:
        return MemoryStore(self.record, self.folder / "index", MemoryConfig(), tenant=tenant)

    def teardown(self) -> None:
        if hasattr(self, "stores"):
            for store in self.stores.values():
                store.close()
            self.record.close()
            shutil.rmtree(self.folder)

    def untouched(self, tenant: str) -> Any:
        """All that the other tenant has."""
        (other,) = {*TENANTS} - {tenant}
        return [self.stores[other].history(item.id) for item in self.stores[other].experiences()]

    def check(self, tenant: str, items: list[Experience]) -> None:
        (other,) = {*TENANTS} - {tenant}
        for item in items:
            assert item.tenant == tenant
            assert item.id in self.owned[tenant]
            assert other not in item.goal + item.content.model_dump_json() + item.verbatim + item.core

    @rule(target=ids, tenant=TENANT, whose=TENANT, seed=SEED, kind=st.sampled_from(["skill", "sticker", "guardrail"]))
    def added(self, tenant: str, whose: str, seed: int, kind: str) -> str:
        return self.add(tenant, whose, seed, kind, WORDS[seed])

    def add(self, tenant: str, whose: str, seed: int, kind: str, subject: str) -> str:
        """Drawn, it says, from a trajectory that may be the other's."""
        item = self.stores[tenant].add(an_experience(tenant, f"trj_{whose}{seed}", kind, subject))
        self.owned[tenant].add(item.id)
        return item.id

    @rule(tenant=TENANT, key=ids, version=st.integers(1, 3))
    def an_id_that_may_be_taken(self, tenant: str, key: str, version: int) -> None:
        before = self.untouched(tenant)
        item = an_experience(tenant, f"trj_{tenant}0", "skill", "usurped", id=key, version=version)
        said = ""
        try:
            self.owned[tenant].add(self.stores[tenant].add(item).id)
        except RecordError as error:
            said = str(error)
        assert not any(other in said for other in {*TENANTS} - {tenant})
        assert self.untouched(tenant) == before

    @rule(tenant=TENANT, whose=TENANT, subject=SUBJECT)
    def another_tenants_experience_is_refused(self, tenant: str, whose: str, subject: str) -> None:
        if tenant != whose:
            with pytest.raises(RecordError, match="this is the memory of"):
                self.stores[tenant].add(an_experience(whose, "", "skill", subject))

    @rule(
        tenant=TENANT,
        subject=SUBJECT,
        whose=TENANT,
        mode=st.sampled_from(["fused", "vector", "keyword"]),
        statuses=st.sampled_from([(), (Status.ACTIVE,), (Status.RETIRED,)]),
    )
    def search(self, tenant: str, subject: str, whose: str, mode: Any, statuses: Any) -> None:
        query = Query(f"{subject} of {whose}, click, the goal", mode=mode, statuses=statuses, k=50)
        hits = self.stores[tenant].search(query)
        self.check(tenant, [hit.experience for hit in hits])
        (other,) = {*TENANTS} - {tenant}
        assert self.stores[tenant].search(Query(other, mode="keyword", statuses=())) == [], "nor by the other's words"
        if mode != "keyword" and statuses == ():
            assert {hit.experience.id for hit in hits} == {item.id for item in self.stores[tenant].experiences()}

    @rule(tenant=TENANT, seed=SEED, only=st.none() | ids)
    def recall(self, tenant: str, seed: int, only: str | None) -> None:
        task = Task(environment="toy", family="f", seed=seed + 10, split=Split.TRAIN)
        if only is not None and only not in self.owned[tenant]:
            assert self.stores[tenant].recaller(only=only).recall(task, "open", "") == Recall()
            return
        recall = self.stores[tenant].recaller(absorbed=True).recall(task, "open the door of ann and bob", "")
        self.check(tenant, [self.stores[tenant].get(shown.id) for shown in recall.shown])
        self.check(tenant, list(recall.guardrails))

    @rule(
        tenant=TENANT, key=ids, what=st.sampled_from(["get", "history", "sources", "change", "move", "undo", "forget"])
    )
    def one(self, tenant: str, key: str, what: str) -> None:
        store, before = self.stores[tenant], self.untouched(tenant)
        work = {
            "get": lambda: [store.get(key)],
            "history": lambda: store.history(key),
            "sources": lambda: [trajectory for trajectory, _, _ in store.sources(key)],
            "change": lambda: [store.change(key, Change(by="hand:me"), goal=f"changed by {tenant}")],
            "move": lambda: [store.move(key, Status.RETIRED, Change(by="hand:me"))],
            "undo": lambda: [store.undo(key, by="hand:me")],
            "forget": lambda: [store.forget(key, reason=f"a reason of {tenant}", by="hand:me")],
        }
        there = key in {item.id for item in store.experiences()}
        said, found = "", []
        try:
            found = work[what]()
        except RecordError as error:
            said = str(error)
        assert {item.tenant for item in found} <= {tenant}
        if what in ("get", "history"):
            self.check(tenant, found)
        if key not in self.owned[tenant]:
            assert said == f"memory has no experience {key!r}", "as of one that nobody has"
        elif there and what != "undo":
            assert said == ""
        assert self.untouched(tenant) == before

    @rule(tenant=TENANT)
    def reopen(self, tenant: str) -> None:
        """Whoever opens first holds the index from then on."""
        self.stores[tenant].close()
        self.stores[tenant] = self.opened(tenant)

    @rule(tenant=TENANT)
    def count(self, tenant: str) -> None:
        figures = self.stores[tenant].stats()
        assert figures["experiences"] == figures["indexed"] == len(self.stores[tenant].experiences())
        self.check(tenant, self.stores[tenant].experiences())


def test_no_tenant_ever_sees_or_changes_anothers(full_counts: bool) -> None:
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large]
    counts = settings(
        max_examples=200 if full_counts else 10,
        stateful_step_count=50 if full_counts else 20,
        deadline=None,
        suppress_health_check=checks,
    )
    run_state_machine_as_test(TwoTenants, settings=counts)
