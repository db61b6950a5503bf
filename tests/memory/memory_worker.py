"""One of several processes on one workspace; `test_processes.py` starts them.

python memory_worker.py WORKSPACE NAME write COUNT    writes and reads, then ends
python memory_worker.py WORKSPACE NAME serve          does what each line of standard input says
python memory_worker.py WORKSPACE NAME flood          writes until it is killed
"""

import sys
from itertools import count
from pathlib import Path

from tutelage.config import MemoryConfig
from tutelage.experience import Change, Experience, Skill, Source, Status
from tutelage.memory import finder
from tutelage.memory.query import Query
from tutelage.memory.store import MemoryStore
from tutelage.record import Record

SHARED = 10
"""Every so many writes, one is of what all the processes write."""


def a_skill(text: str, task: int, **changes: object) -> Experience:
    values = {
        "environment": "toy",
        "family": "f",
        "goal": text,
        "content": Skill(preconditions=(), procedure=(f"say({text!r})",), verification=()),
        "sources": (Source(trajectory=f"trj_{task}", task=f"toy/f@{task}"),),
        "status": Status.ACTIVE,
        "author": "rules (scripted)",
        "verbatim": text,
    }
    return Experience.model_validate({**values, **changes})


def write(store: MemoryStore, name: str, number: int) -> None:
    """Own things, things that all write, and changes of one thing; each is read back at once."""
    for index in range(number):
        own = f"{name}word{index}"
        added = store.add(a_skill(own, 1000 * int(name[1:]) + index))
        assert store.search(Query(own, mode="keyword", k=1))[0].experience == added, own
        assert store.get(added.id) == added
        if index % SHARED == 0:
            shared = store.add(a_skill(f"shared{index}", 1000 * int(name[1:]) + index))
            assert any(source in store.get(shared.id).sources for source in shared.sources)
            store.change("exp_counter", Change(by=f"hand:{name}", reason=str(index)), goal=f"{name} {index}")


def serve(store: MemoryStore) -> None:
    for line in sys.stdin:
        order, _, text = line.strip().partition(" ")
        if order == "add":
            print(store.add(a_skill(text, 1)).id, flush=True)
        elif order == "find":
            print(*(hit.experience.goal for hit in store.search(Query(text, k=1))), flush=True)
        else:
            print(store.stats()["index"], flush=True)


def flood(store: MemoryStore, name: str) -> None:
    finder.FLUSH = 7
    for index in count():
        if index % 3:
            items = [store.add(a_skill(f"{name}word{index}", index))]
        else:
            items = store.add_many(a_skill(f"{name}word{index}part{part}", index) for part in range(4))
        changed = store.change(items[0].id, Change(by="hand:me"), goal=f"changed{index}")
        print(*(item.id for item in items), changed.version, flush=True)
        store.search(Query("word", k=1))


def main() -> None:
    folder, name, what = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    with MemoryStore(Record.open(folder), folder / "index", MemoryConfig()) as store:
        if what == "write":
            write(store, name, int(sys.argv[4]))
        elif what == "serve":
            serve(store)
        else:
            flood(store, name)


if __name__ == "__main__":
    main()
