"""Opening the memory of a workspace by its folder, without anything else of Tutelage."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tutelage.config import CONFIG_FILE, INDEX, load_config
from tutelage.errors import ConfigError
from tutelage.memory.store import MemoryStore
from tutelage.memory.trust import with_declared
from tutelage.record import Record


@contextmanager
def open_memory(workspace: Path | str, *, tenant: str | None = None) -> Iterator[MemoryStore]:
    """The memory of a workspace, with the settings it was last used with; others may have it open as well.

    Args:
        workspace: its folder.
        tenant: whose memory; default: the configured one's.

    Raises:
        ConfigError: there is no workspace.
        RecordError, UnknownName, MissingPart: it cannot be opened, as `MemoryStore` says.
    """
    folder = Path(workspace)
    if not (folder / CONFIG_FILE).exists():
        raise ConfigError(f"there is no workspace at {folder}; make one with `tutelage run --config FILE`")
    config = with_declared(load_config(folder / CONFIG_FILE))
    record = Record.open(folder, create=False)
    try:
        with MemoryStore(record, folder / INDEX, config, tenant=tenant) as store:
            yield store
    finally:
        record.close()
