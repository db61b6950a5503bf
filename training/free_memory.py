"""How much memory this process may still take: of the GPU, or of the machine, its container and its own limits."""

from pathlib import Path

import psutil
import torch

CGROUP = Path("/sys/fs/cgroup")
"""Where the limits of the container are; both versions are understood."""


def free() -> int:
    """Bytes that can still be taken where the student is trained."""
    if torch.cuda.is_available():
        return int(torch.cuda.mem_get_info()[0])
    return min(psutil.virtual_memory().available, _container(CGROUP), _own())


def _container(folder: Path) -> int:
    """What the control group leaves, file pages that it would give up counted as free."""
    for limit, usage, reclaimable in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
    ):
        at, used = folder / limit, folder / usage
        if at.is_file() and used.is_file() and (text := at.read_text().strip()).isdigit():
            given_up = _table(at.with_name("memory.stat")).get(reclaimable, 0)
            return max(0, int(text) - int(used.read_text()) + given_up)
    return 2**62


def _own() -> int:
    """What a limit on the address space (``ulimit -v``) leaves."""
    try:
        import resource
    except ImportError:  # not on this system
        return 2**62
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return 2**62 if limit == resource.RLIM_INFINITY else max(0, limit - psutil.Process().memory_info().vms)


def _table(path: Path) -> dict[str, int]:
    """Numbers by name, of a file with lines like ``name 12``."""
    words = (line.split() for line in path.read_text().splitlines()) if path.is_file() else ()
    return {line[0]: int(line[1]) for line in words if len(line) > 1 and line[1].isdigit()}
