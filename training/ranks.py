"""What the processes that train one stage together say to each other; a process that trains alone has it all.

Every process must come to each of these calls, in the same order.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch.distributed

from tutelage.errors import TutelageError

T = TypeVar("T")

NOT_ONE = "so they did not train one student: use student.processes = 1, and please report it"


def passes(batch_size: int, micro: int) -> tuple[int, int]:
    """How this process goes through its share of a batch: rows per forward pass (at most `micro`, if that is not 0),
    and number of passes. `Config` sees that it comes out even."""
    share = batch_size // count()
    rows = min(micro or share, share)
    return rows, share // rows


def count() -> int:
    """How many processes there are."""
    return torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1


def rank() -> int:
    """Which of them this one is; the first, 0, is the one whose results count."""
    return torch.distributed.get_rank() if torch.distributed.is_initialized() else 0


def everyone(items: Sequence[T]) -> list[T]:
    """The items of all processes, those of the first one first."""
    if count() == 1:
        return list(items)
    parts: list[Any] = [None] * count()
    torch.distributed.all_gather_object(parts, list(items))
    return [item for part in parts for item in part]


def first(make: Callable[[], T]) -> T:
    """What `make` returns in the first process; it is called there alone."""
    if count() == 1:
        return make()
    made: list[Any] = [make() if rank() == 0 else None]
    torch.distributed.broadcast_object_list(made)
    result: T = made[0]
    return result


def agree(value: Callable[[], object], what: str) -> None:
    """See that all processes have the same `value`; one that is alone does not look.

    Raises:
        TutelageError: they do not; `what` names it.
    """
    if count() > 1 and len(set(everyone([value()]))) > 1:
        raise TutelageError(f"the {count()} processes have different {what}, {NOT_ONE}")


def place(items: Sequence[Any]) -> int:
    """Where this process's `items` begin among those of all processes."""
    lengths = everyone([len(items)])
    return sum(lengths[: rank()])
