"""Where jobs run: one interface, a process of this machine by default."""

from pathlib import Path
from typing import Protocol

from tutelage.config import JobsConfig
from tutelage.registry import resolve

LAUNCHERS = {"local": "tutelage.jobs.local:LocalLauncher", "ray": "tutelage.jobs.ray:RayLauncher"}


class Launcher(Protocol):
    """Starts attempts of one workspace's jobs somewhere that sees the workspace, by the command line that
    `tutelage.jobs.attend.command` makes. It is made with the settings of `jobs` and the workspace's folder.

    The process takes over the lease, sends heartbeats, runs the job and notes how it ended. A launcher starts it,
    can tell whether it lives, and ends it; what is true about the job is in the record alone. The record may hold
    handles that another launcher gave, before the settings named this one: of those it knows nothing.
    """

    name: str

    def start(self, job: str, attempt: int) -> str:
        """Start it; starting the same attempt a second time starts nothing.

        Returns:
            The handle that `alive` and `stop` take, in this process or another.

        Raises:
            TutelageError: it cannot be started.
        """
        ...

    def alive(self, handle: str) -> bool | None:
        """Whether it runs; None: not known from here."""
        ...

    def stop(self, handle: str, *, grace: float) -> None:
        """End it and every process that it started: asked first, and after `grace` seconds at once."""
        ...

    def output(self, handle: str) -> str:
        """The last lines that the process wrote, for a job that died without a word; empty: not known."""
        ...


def launcher(config: JobsConfig, workspace: Path) -> Launcher:
    """The configured launcher.

    Raises:
        UnknownName: there is none of that name.
        MissingPart: something it needs is not installed.
    """
    found: Launcher = resolve(config.launcher, LAUNCHERS, what="launcher", group="tutelage.launchers")(
        config, workspace
    )
    return found
