"""Triggers: what they wait for and how far that is, and the one-shot that fires and works off what is due."""

import sys
import time
from contextlib import closing
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tutelage.cli.app import ConfigOption, JsonOption, SetOption, emit_json, emit_rows, load, opened
from tutelage.cli.job_queue import as_dict, dispatcher, jobs_app, patiently
from tutelage.cli.legible import tell
from tutelage.jobs.model import RUNS, Job, State

if TYPE_CHECKING:
    from tutelage.config import TrustConfig
    from tutelage.jobs.dispatcher import Dispatcher
    from tutelage.jobs.scheduler import Fired
    from tutelage.jobs.store import JobStore
    from tutelage.jobs.triggers import Kept
    from tutelage.service_config import TriggerConfig


@jobs_app.command()
def tick(
    work: Annotated[bool, typer.Option("--work/--no-work", help="Work the queue off, too.")] = True,
    config: ConfigOption = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fire the triggers that are due and work the queue off, once: for cron, systemd timers, Kubernetes. 1 if a job
    failed.

    Served conversations that are older than is kept are forgotten.
    Ends when nothing is left that could be started; what others run and what waits for its next attempt stay alone.
    """
    from tutelage.jobs.scheduler import Scheduler
    from tutelage.serving.retention import expire

    with opened(config, overrides, existing=config is None, remember=config is not None) as workspace:
        scheduler = Scheduler(workspace.folder, workspace.config)
        try:
            fired = scheduler.fire()
            expire(workspace)
            if not as_json:
                for item in fired:
                    tell(_told(item), flush=True)
            done: list[Job] = []
            if work:
                done = _work_off(
                    dispatcher(scheduler.store, workspace.config), scheduler.store, workspace.config.jobs.poll
                )
        finally:
            scheduler.close()
    if as_json:
        emit_json({"fired": [vars(item) for item in fired], "jobs": [as_dict(job) for job in done]})
    else:
        for job in done:
            tell(f"{job.id} {job.kind} {job.state}{f': {job.last.reason}' if job.last.reason else ''}")
        if not fired and not done:
            print("nothing is due")
    if any(job.state is State.FAILED for job in done):
        sys.exit(1)


def _work_off(working: "Dispatcher", store: "JobStore", poll: float) -> list[Job]:
    """Run what can be run until nothing is left of it; the jobs that were, as they stand then."""
    seen: dict[str, int] = {}
    """The attempt that each job was at when it was first seen: what it is at later was begun meanwhile."""

    def ours() -> bool:
        return any(job.last.attempt > seen.get(job.id, 0) for job in store.jobs(RUNS))

    while True:
        with patiently():
            for job in reversed(store.jobs((*RUNS, State.QUEUED))):
                seen.setdefault(job.id, job.last.attempt)
            # One that ran when the queue was looked at may have kept others waiting, and be over by now: look again.
            ran = ours()
            if not working.tick() and not ran and not ours():
                found = [store.get(job_id) for job_id in seen]
                return [job for job in found if job.last.attempt > seen[job.id]]
        time.sleep(poll)


@jobs_app.command()
def triggers(config: ConfigOption = None, overrides: SetOption = None, as_json: JsonOption = False) -> None:
    """What starts jobs by itself: when each trigger fired last and why, and when it is due or how far the data are."""
    from tutelage.jobs.scheduler import TRIGGER
    from tutelage.jobs.store import JobStore
    from tutelage.jobs.triggers import Kept
    from tutelage.record import Record

    settings, rows = load(config, overrides, existing=True), []
    with closing(Record.open(settings.workspace, create=False, tenant=settings.memory.tenant)) as record:
        store = JobStore(record)
        for trigger in settings.triggers:
            body = store.record.get(TRIGGER, trigger.name)
            kept = Kept.model_validate(body) if body else None
            rows.append(_row(store, trigger, kept, settings.memory.trust))
    columns = ("name", "job", "when", "last", "next", "note")
    emit_rows(rows, columns, as_json=as_json, empty="no triggers; they are the [[triggers]] of the settings")


def _row(store: "JobStore", trigger: "TriggerConfig", kept: "Kept | None", trust: "TrustConfig") -> dict[str, Any]:
    """One trigger as it is printed; times of the clock in its own zone."""
    from tutelage.jobs import data_triggers
    from tutelage.jobs.cron import zone
    from tutelage.jobs.triggers import by_clock, condition, upcoming

    now, job, due = time.time(), None, None
    if kept is not None and kept.job:
        job = store.get(kept.job)
    if not trigger.enabled:
        ahead = "switched off"
    elif kept is None or kept.condition != condition(trigger):
        ahead = "starts when it is first looked at"
    elif by_clock(trigger):
        due = upcoming(trigger, kept, now)
        ahead = f"{datetime.fromtimestamp(due, zone(trigger.timezone)):%Y-%m-%d %H:%M:%S %Z}" if due else "never"
    else:
        ahead = data_triggers.look(store.record, trigger, kept, trust).far
        if 0 < (cool := kept.fired_time + trigger.cooldown - now) <= trigger.cooldown:
            ahead += f", cools down for {cool:.0f} s"
    last = "never"
    if kept is not None and kept.fired_time:
        last = f"{datetime.fromtimestamp(kept.fired_time, zone(trigger.timezone)):%Y-%m-%d %H:%M:%S %Z}"
        if job is not None:
            last += f", {job.id} {job.state}"
    return {
        "name": trigger.name,
        "job": trigger.job.value,
        "when": _when(trigger),
        "last": last,
        "next": ahead,
        "enabled": trigger.enabled,
        "due": due,
        "fired": kept.fired_time if kept is not None and kept.fired_time else None,
        "last_job": job.id if job is not None else None,
        "note": kept.note if kept is not None else "",
    }


def _when(trigger: "TriggerConfig") -> str:
    if trigger.cron:
        return f"cron {trigger.cron} ({trigger.timezone})"
    if trigger.every:
        return f"every {trigger.every:g} s"
    names = ("accepted", "success_below", "memory_over", "drift")
    return next(f"{name} {getattr(trigger, name):g}" for name in names if getattr(trigger, name))


def _told(fired: "Fired") -> str:
    return f"{fired.trigger}: {fired.why}; queued {fired.job}"
