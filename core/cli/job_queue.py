"""The queue: submit jobs, look at them, stop them, work them off."""

import json
import logging
import signal
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tutelage.cli import INTERRUPTED
from tutelage.cli.app import ConfigOption, JsonOption, SetOption, app, emit_json, emit_rows, load
from tutelage.cli.legible import tell
from tutelage.cli.memory import who
from tutelage.config import Config
from tutelage.errors import ConfigError
from tutelage.jobs.model import OVER, Job, Line, State
from tutelage.service_config import JobKind

if TYPE_CHECKING:
    from tutelage.jobs.dispatcher import Dispatcher
    from tutelage.jobs.store import JobStore

jobs_app = typer.Typer(help="Queue background work, follow it, and work it off.", no_args_is_help=True)
app.add_typer(jobs_app, name="jobs")

IdArgument = Annotated[str, typer.Argument(help="Id of a job, or the beginning of it.")]
LOOK_EVERY = 0.5
"""Seconds between looks at a job that is followed."""
_LOG = logging.getLogger(__name__)


class Stopped(SystemExit):
    """Ctrl-C, when what becomes of the work has been said."""

    def __init__(self) -> None:
        super().__init__(INTERRUPTED)


@jobs_app.command()
def submit(
    kind: Annotated[JobKind, typer.Argument(help="What the job does.")],
    param: Annotated[
        list[str] | None, typer.Option("--param", "-p", metavar="NAME=VALUE", help="What it is given; repeatable.")
    ] = None,
    key: Annotated[str, typer.Option(help="A job that was submitted with this key before is the same job.")] = "",
    delay: Annotated[float, typer.Option("--in", min=0, metavar="SECONDS", help="Not before then.")] = 0.0,
    wait: Annotated[bool, typer.Option("--wait", help="Work the queue until the job is over; 1 if it fails.")] = False,
    config: ConfigOption = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Queue a job: it runs once `tutelage serve`, `jobs work` or `jobs tick` takes it. Overrides (-s) are its own."""
    given = _params(param or [])
    others = [item for item in overrides or [] if not item.startswith("workspace=")]
    if others:
        given["set"] = [*given.get("set", []), *others]
    with queue(config, overrides, only_workspace=True) as (store, settings):
        job, new = store.submit(kind, given, key=key, by=_me(), due=time.time() + delay if delay else 0.0)
        if wait:
            try:
                job = _worked_off(store, settings, job)
            except KeyboardInterrupt:
                print(
                    f"stopped waiting for {job.id}: if it runs, it goes on, and if not, it waits for `tutelage serve` "
                    f"or `tutelage jobs work`; `tutelage jobs logs -f {job.id}` follows it",
                    file=sys.stderr,
                )
                raise Stopped from None
    if as_json:
        emit_json({**as_dict(job), "new": new})
    elif wait:
        tell(f"{job.id} {job.state}{f': {job.last.reason}' if job.last.reason else ''}")
    else:
        print(f"{job.id} {'queued' if new else f'was submitted with this key before and is {job.state}'}")
    if wait and job.state is not State.SUCCEEDED:
        raise typer.Exit(1)


@jobs_app.command("list")
def list_jobs(
    state: Annotated[list[State] | None, typer.Option(help="Only in this state; repeatable.")] = None,
    kind: Annotated[JobKind | None, typer.Option(help="Only of this kind.")] = None,
    limit: Annotated[int, typer.Option("-n", min=1, help="How many at the most.")] = 50,
    config: ConfigOption = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Jobs, newest first, and how far they are."""
    with queue(config, overrides) as (store, _):
        found = store.jobs(state or (), kind, limit)
    rows = [as_dict(job) if as_json else _row(job) for job in found]
    columns = ("id", "kind", "state", "attempt", "by", "created", "progress")
    emit_rows(rows, columns, as_json=as_json, empty="no jobs; `tutelage jobs submit KIND` queues one")


@jobs_app.command()
def show(
    job_id: IdArgument, config: ConfigOption = None, overrides: SetOption = None, as_json: JsonOption = False
) -> None:
    """One job: what it is, every state it came into, and what came of it."""
    with queue(config, overrides) as (store, _):
        job = store.get(job_id)
    if as_json:
        emit_json(as_dict(job))
        return
    tell(f"{job.id}: {job.kind}, {job.state}, by {job.by}" + ("; told to stop" if job.cancel else ""))
    if job.params:
        tell(f"params: {json.dumps(job.params, ensure_ascii=False)}")
    for move in job.moves:
        due = f", not before {_clock(move.due)}" if move.due > move.created.timestamp() + 1 else ""
        about = ": ".join(part for part in (move.worker, move.reason) if part)
        number = f" ({move.attempt})" if move.attempt else ""
        tell(f"  {_clock(move.created.timestamp())}  {move.state}{number}{due}{f'  {about}' if about else ''}")
    if job.progress.what:
        tell(f"progress: {_progress(job)}")
    if job.over and job.last.result:
        tell(json.dumps(job.last.result, indent=2, ensure_ascii=False))


@jobs_app.command()
def logs(
    job_id: IdArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job is over.")] = False,
    config: ConfigOption = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """What a job said."""
    with queue(config, overrides) as (store, _):
        job, last = store.get(job_id), 0
        while True:
            job = store.get(job.id)  # before its lines, so that none of the last ones is missed
            for line in store.lines(job.id, after=last):
                last = line.n
                if as_json:
                    print(line.model_dump_json(), flush=True)
                else:
                    tell(_told(line), flush=True)
            if not follow or job.over:
                break
            time.sleep(LOOK_EVERY)
    if follow and not as_json:
        tell(f"{job.state}{f': {job.last.reason}' if job.last.reason else ''}", file=sys.stderr)


@jobs_app.command()
def cancel(
    job_id: IdArgument, config: ConfigOption = None, overrides: SetOption = None, as_json: JsonOption = False
) -> None:
    """Stop a job; what is finished stays, and what is half made goes."""
    with queue(config, overrides) as (store, _):
        job = store.cancel(job_id, _me())
    stops = "is told to stop" if job.cancel else "is cancelled"
    emit_json(as_dict(job)) if as_json else print(f"{job.id} {stops}")


@jobs_app.command()
def retry(
    job_id: IdArgument, config: ConfigOption = None, overrides: SetOption = None, as_json: JsonOption = False
) -> None:
    """Queue a job that failed or was cancelled again; it goes on where it was."""
    with queue(config, overrides) as (store, _):
        job = store.retry(job_id, _me())
    emit_json(as_dict(job)) if as_json else print(f"{job.id} queued")


@jobs_app.command()
def work(
    once: Annotated[bool, typer.Option("--once", help="Only until nothing is left that can be started.")] = False,
    config: ConfigOption = None,
    overrides: SetOption = None,
) -> None:
    """Run the jobs of the queue, without triggers. Ended or killed, what runs goes on."""
    stop = Event()
    with queue(config, overrides) as (store, settings):
        working = dispatcher(store, settings)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, frame: stop.set())
        where = f"launcher {settings.jobs.launcher}, at most {settings.jobs.at_once} at once"
        print(f"working on the queue in {settings.workspace} ({where})", file=sys.stderr, flush=True)
        working.wait(until_idle=once, stop=stop)


# -- shared with the other commands of this group -------------------------------------------------


@contextmanager
def queue(
    config: Path | None, overrides: list[str] | None, *, only_workspace: bool = False
) -> Iterator[tuple["JobStore", Config]]:
    """The queue of the workspace, and the settings it was last used with.

    Args:
        only_workspace: of the overrides only the one that names the workspace counts.

    Raises:
        ConfigError: there is no workspace.
        RecordError: its record cannot be opened.
    """
    from tutelage.jobs.store import JobStore
    from tutelage.record import Record

    if only_workspace:
        overrides = [item for item in overrides or [] if item.startswith("workspace=")]
    settings = load(config, overrides, existing=True)
    record = Record.open(settings.workspace, create=False)
    try:
        yield JobStore(record), settings
    finally:
        record.close()


def dispatcher(store: "JobStore", settings: Config) -> "Dispatcher":
    """One that works on this queue, by the configured launcher.

    Raises:
        UnknownName, MissingPart: there is no such launcher, or it needs something that is not installed.
    """
    from tutelage.jobs.dispatcher import Dispatcher
    from tutelage.jobs.launcher import launcher

    folder = settings.workspace.resolve()
    return Dispatcher(store.record, folder, settings, launcher(settings.jobs, folder))


def as_dict(job: Job) -> dict[str, Any]:
    """A job as commands print it with ``--json``."""
    return {**job.model_dump(mode="json"), "state": job.state.value, "over": job.over, "result": job.last.result}


def _worked_off(store: "JobStore", settings: Config, job: Job) -> Job:
    """Work the queue until the job is over, saying what it says."""
    working, last = dispatcher(store, settings), 0
    while True:
        with patiently():
            working.tick()
            found = store.get(job.id)
            for line in store.lines(job.id, after=last):
                last = line.n
                tell(_told(line), file=sys.stderr, flush=True)
            if found.state in OVER:
                return found
        time.sleep(min(LOOK_EVERY, settings.jobs.poll))


@contextmanager
def patiently() -> Iterator[None]:
    """Around one look at the queue of several: a database that is busy or away is said to be so, and waited for."""
    from tutelage.database import AWAY, away

    try:
        yield
    except AWAY as error:
        _LOG.warning("%s", away(error))


def _params(items: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for item in items:
        name, equals, text = item.partition("=")
        if not equals or not name:
            raise ConfigError(f"--param {item!r} is not of the form NAME=VALUE")
        value: Any = text
        with suppress(tomllib.TOMLDecodeError):
            value = tomllib.loads(f"value = {text}")["value"]
        if name == "set" and isinstance(value, str):  # one setting of several
            value = [*found.get(name, []), value]
        found[name] = value
    return found


def _row(job: Job) -> dict[str, Any]:
    told = _progress(job) if not job.over else job.last.reason or _outcome(job.last.result)
    return {
        "id": job.id,
        "kind": job.kind.value,
        "state": job.state.value,
        "attempt": job.last.attempt,
        "by": job.by,
        "created": _clock(job.created.timestamp()),
        "progress": told if len(told) <= 80 else f"{told[:79]}…",
    }


def _progress(job: Job) -> str:
    if job.state is State.QUEUED:
        wait = f"not before {_clock(job.last.due)}" if job.last.due > time.time() else ""
        return ", ".join(part for part in (wait, job.last.reason if job.last.result else "") if part)
    done = f"{job.progress.what} {job.progress.done}/{job.progress.total}" if job.progress.what else ""
    return ", ".join(part for part in (done, "told to stop" if job.cancel else "") if part)


def _outcome(result: dict[str, Any]) -> str:
    if "gate" in result:
        return str(result["gate"])
    if "cycle" in result:
        return f"cycle {result['cycle']}"
    if "arm" in result:
        rate = result["arm"]["rate"]
        return f"{rate['successes']} of {rate['episodes']} solved"
    return ", ".join(f"{count} {name}" for name, count in result.get("tasks", {}).items())


def _told(line: Line) -> str:
    return f"{_clock(line.created.timestamp())} {line.text}"


def _clock(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _me() -> str:
    return f"hand:{who('')}"
