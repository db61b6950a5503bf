"""The loop: one LangGraph run per cycle, checkpointed in SQLite, safe to kill anywhere.

The graph's state holds the cycle's number and nothing else; every node finds out from the record what is
left to do. A killed cycle therefore continues when the same command is given again, from the checkpoint
if there is one and from the record in any case. A job's cycle belongs to the job, and goes on when that does.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypedDict

from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, StateGraph
from pydantic import ValidationError

from tutelage import cycle as steps
from tutelage import distilling, evidence, gate, measure
from tutelage.config import Config
from tutelage.cycle_lock import cycle_lock
from tutelage.cycle_settings import FREE_TO_CHANGE, as_learnt, with_memory_of
from tutelage.errors import ConfigError, WorkspaceBusy
from tutelage.giving_up import RUNNING, give_up, settle, unfinished
from tutelage.jobs.model import State
from tutelage.jobs.reading import JobReader
from tutelage.progress import Cancelled, Reporter
from tutelage.record import Record
from tutelage.training import need, tracking, weights
from tutelage.training.base import weights_of
from tutelage.usage import BY_CYCLE
from tutelage.workspace import Workspace

Node = Callable[[Workspace, int, Reporter], None]

NODES: dict[str, Node] = {
    "collect": steps.collect,
    "judge": distilling.judge,
    "extract": distilling.extract,
    "consolidate": distilling.consolidate,
    "train": steps.train,
    "evaluate": measure.evaluate,
    "gate": gate.decide,
    "evidence": evidence.gather,
}
KINDS: dict[str, tuple[str, ...]] = {
    "run": tuple(NODES),
    "distill": ("judge", "extract", "consolidate", "train", "evaluate", "gate", "evidence"),
    "extract": ("judge", "extract", "consolidate"),
    "train": ("train",),
    "collect": ("collect",),
    "consolidate": ("consolidate",),
}
"""What each kind of cycle consists of."""


class CycleState(TypedDict):
    cycle: int


def run(workspace: Workspace, kind: str, report: Reporter, job: str = "") -> int:
    """Finish the unfinished cycle, or do the next one; for ``run``, until `loop.cycles` are complete.

    Args:
        job: the id of the job that this is. It has one cycle: if that is finished already, nothing is done.

    Returns:
        The number of the last cycle; the job's own, if it is one.

    Raises:
        ConfigError: an unfinished cycle of another kind, of somebody else or with other settings is in the way; 4 bits
            without a GPU; a stage needs more memory than there is, or episodes more tokens than the model takes.
        MissingPart: the tracker, or what quantises weights, is not installed.
        RecordError: the runs of the workspace are another tenant's.
        WorkspaceBusy: somebody else runs a cycle here, or a job that is not over has one to finish.
    """
    workspace.record.claim()
    tracking.check(workspace.config.tracking)
    if workspace.config.student.quantize != "none":
        weights.quantization(workspace.config.student.quantize)
    with cycle_lock(workspace.folder, f"job {job}" if job else f"`tutelage {kind}`"):
        settle(workspace)
        mine = own_cycle(workspace.record, job)
        if mine is not None and mine[1]["status"] == "finished":
            return mine[0]  # the job was killed after its cycle ended and before it could say so
        return _run(workspace, kind, report, job)


def own_cycle(record: Record, job: str) -> tuple[int, dict[str, Any]] | None:
    """Number and body of the cycle of a job, unless it has none or it was given up."""
    cycles = record.items("loop").items() if job else ()
    mine = [(int(key), body) for key, body in cycles if body.get("job") == job and body["status"] != "cancelled"]
    return mine[-1] if mine else None


def own_settings(config: Config, begun: dict[str, Any]) -> Config:
    """The settings to finish a cycle with: those it was begun with, and of those that may differ the present ones.

    Raises:
        ConfigError: an older version of Tutelage began it, with settings that this one does not take.
    """
    free = {name: value for name, value in config.model_dump(mode="json").items() if name in FREE_TO_CHANGE}
    return with_memory_of(_understood({**begun, **free}), config)


def _understood(begun: dict[str, Any]) -> Config:
    """The settings a cycle was begun with; those that the version which began it did not have yet are the defaults."""
    try:
        return Config.model_validate(begun)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise ConfigError(
            f"an unfinished cycle was begun with {key}, which this version of Tutelage does not take ({first['msg']}); "
            "finish it with the version that began it"
        ) from error


def _run(workspace: Workspace, kind: str, report: Reporter, job: str) -> int:
    last = max((int(key) for key in workspace.record.items("loop")), default=0)
    begun = unfinished(workspace.record).get(last)
    if begun is not None:
        _go_on_with(workspace, last, begun, kind, job)
    if "train" in KINDS[kind] and (begun is not None or kind != "run" or _cycles_left(workspace)):
        _check_trainable(workspace, last if begun is not None else last + 1, begun=begun is not None)
    if begun is not None:
        _run_cycle(workspace, last, kind, report)
    elif kind != "run":
        last += 1
        _begin(workspace, last, kind, job)
        _run_cycle(workspace, last, kind, report)
    if kind == "run":
        for _ in range(_cycles_left(workspace)):
            last += 1
            _begin(workspace, last, kind)
            _run_cycle(workspace, last, kind, report)
    return last


def _go_on_with(workspace: Workspace, cycle: int, body: dict[str, Any], kind: str, job: str) -> None:
    """See that an unfinished cycle may be gone on with; one of a job that has failed changes hands.

    Raises:
        ConfigError: it may not.
        WorkspaceBusy: it is a job's that goes on with it itself.
    """
    owner = body.get("job", "")
    if owner == job:
        _check_same(workspace.config, body, kind, cycle)
        return
    if not owner:
        raise ConfigError(
            f"cycle {cycle} was begun by hand and is unfinished; finish it first with `tutelage {body['kind']}`"
        )
    state = JobReader(workspace.record).get(owner).state
    if state is not State.FAILED:
        raise WorkspaceBusy(
            f"cycle {cycle} is unfinished and {owner}, whose it is, is {state}; wait for it or cancel it"
        )
    try:
        _check_same(workspace.config, body, kind, cycle)
    except ConfigError as error:
        way_out = f"`tutelage jobs retry {owner}` goes on with it, `tutelage jobs cancel {owner}` gives it up"
        raise ConfigError(f"{error}; it is that of {owner}, which failed: {way_out}") from error
    others = {name: value for name, value in body.items() if name != "job"}
    workspace.record.put("loop", str(cycle), {**others, **({"job": job} if job else {})})


def _cycles_left(workspace: Workspace) -> int:
    """How many cycles of ``run`` are still to begin."""
    done = [body for body in workspace.record.items("loop").values() if body["kind"] == "run"]
    return max(0, workspace.config.loop.cycles - len(done))


def _begin(workspace: Workspace, cycle: int, kind: str, job: str = "") -> None:
    body = {"kind": kind, "status": RUNNING, "config": workspace.config.model_dump(mode="json"), "created": _now()}
    if job:
        body["job"] = job
    with workspace.record.transaction():  # nobody deletes the student between the look and the note
        if "train" in KINDS[kind]:
            body["start"] = workspace.current_student().id
        workspace.record.put("loop", str(cycle), body)


def _check_same(config: Config, body: dict[str, Any], kind: str, cycle: int) -> None:
    if body["kind"] != kind:
        raise ConfigError(f"cycle {cycle} is unfinished; finish it first with `tutelage {body['kind']}`")
    now, then = (as_learnt(item) for item in (config, _understood(body["config"])))
    changed = [key for key in now if now[key] != then[key]]
    if changed:
        raise ConfigError(
            f"cycle {cycle} was begun with other settings in: {', '.join(changed)}; "
            "finish it with those, or use another workspace (--set workspace=DIR)"
        )


def _check_trainable(workspace: Workspace, cycle: int, *, begun: bool) -> None:
    """Refuse what cannot be trained before anything is played for it; the cycle looks again when it gets there."""
    config, record = workspace.config, workspace.record
    left = [index for index in range(len(config.stages)) if record.get("stage", f"{cycle}/{index}") is None]
    if left:
        name = weights_of(steps.start_of(workspace, cycle), workspace.folder)
        weights.check_length(name, config.student.max_length)
        need.check(config, name, steps.experience_trajectories(workspace), left, begun=begun)


def _run_cycle(workspace: Workspace, cycle: int, kind: str, report: Reporter) -> None:
    workspace.usage.begin_cycle(cycle, workspace.record.items(BY_CYCLE))
    with SqliteSaver.from_conn_string(str(workspace.folder / "checkpoints.db")) as saver:
        graph = _graph(workspace, KINDS[kind], report).compile(checkpointer=saver)
        thread: Any = {"configurable": {"thread_id": f"cycle-{cycle}"}}
        resumed = bool(graph.get_state(thread).next)
        try:
            graph.invoke(None if resumed else {"cycle": cycle}, thread, durability="sync")
        except Cancelled:
            give_up(workspace, cycle)
            raise
    body = workspace.record.get("loop", str(cycle))
    assert body is not None, "a cycle is in the record before it runs"
    workspace.usage.end_cycle()
    workspace.record.put("loop", str(cycle), {**body, "status": "finished"})


def _graph(workspace: Workspace, names: tuple[str, ...], report: Reporter) -> StateGraph[CycleState]:
    graph: StateGraph[CycleState] = StateGraph(CycleState)
    previous = START
    for name in names:
        graph.add_node(name, _node(name, workspace, report))
        graph.add_edge(previous, name)
        previous = name
    graph.add_edge(previous, END)
    return graph


def _node(name: str, workspace: Workspace, report: Reporter) -> Any:
    def node(state: CycleState) -> dict[str, Any]:
        report.say(f"[bold]cycle {state['cycle']}: {name}[/bold]")
        began = time.monotonic()
        NODES[name](workspace, state["cycle"], report)
        key = f"{state['cycle']}/{name}"
        if workspace.record.get("timing", key) is None:
            workspace.record.put("timing", key, {"seconds": round(time.monotonic() - began, 1)})
        tracking.track(workspace, report)
        return {}

    return node


def _now() -> str:
    return datetime.now(UTC).isoformat()
