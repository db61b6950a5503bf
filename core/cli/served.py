"""Commands about served conversations: read them, judge them now, forget them."""

import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from tutelage.cli.app import ConfigOption, JsonOption, SetOption, app, emit_json, emit_rows, opened
from tutelage.cli.legible import tell
from tutelage.cli.memory import WhoOption, YesOption, who
from tutelage.errors import ConfigError, RecordError

if TYPE_CHECKING:
    from tutelage.serving.sessions import Turn
    from tutelage.types import Trajectory
    from tutelage.workspace import Workspace

served = typer.Typer(help="Read, judge and forget conversations that were served.", no_args_is_help=True)
app.add_typer(served, name="served")

UNDER_WAY = "under way"
"""How a conversation stands that was not judged yet."""


@served.command("list")
def list_served(
    caller: Annotated[str | None, typer.Option("--caller", help="Only those that came with this key.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at the most, the newest ones.")] = 50,
    config: ConfigOption = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Conversations that were served, of all tenants, oldest first; the ones under way come last."""
    with opened(config, overrides, remember=False) as workspace:
        wanted = _rows(workspace, caller, limit)[-limit:]
    columns = ("id", "last", "caller", "policy", "turns", "ending", "blocked", "goal")
    emit_rows(wanted, columns, as_json=as_json, empty="no served conversations")


@served.command("show")
def show(
    id: Annotated[str, typer.Argument(help="Id of a conversation, as listed.")],
    config: ConfigOption = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """A conversation turn by turn, redacted as it is kept, with what was made of each reply."""
    from tutelage.record_forgetting import FEEDBACK
    from tutelage.serving.sessions import open_turns

    with opened(config, overrides, remember=False) as workspace:
        turns = open_turns(workspace.record).get(id)
        item = None if turns else workspace.record.trajectory(id)
        feedback = workspace.record.get(FEEDBACK, id) or {}
    if turns is not None:
        _show_turns(turns, as_json)
    elif item is not None:
        if not item.live:
            raise RecordError(f"{id} is no served conversation; `tutelage trajectories show` shows it")
        if as_json:
            emit_json({**item.model_dump(mode="json"), "feedback": feedback})
        else:
            _show_trajectory(item)


@served.command("judge")
def judge(
    everything: Annotated[bool, typer.Option("--all", help="Also those that may still go on.")] = False,
    config: ConfigOption = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Judge the conversations that are over, and forget those that are older than is kept; what `tutelage serve` does
    by itself."""
    from tutelage.progress import reporting
    from tutelage.serving.feedback import settle
    from tutelage.serving.retention import expire

    with opened(config, overrides, remember=False) as workspace, reporting() as report:
        settled = settle(workspace, everything=everything, report=report)
        gone = expire(workspace)
    if as_json:
        made = [{"id": item.id, "ending": item.ending.value} for item in settled.trajectories]
        emit_json({"judged": made, "left": settled.left, "forgotten": gone.total})
        return
    print(settled)
    if gone.total:
        print(f"{gone.total} were older than is kept, and are forgotten")


@served.command("forget")
def forget(
    ids: Annotated[list[str] | None, typer.Argument(help="Ids of conversations, as listed.")] = None,
    older_than: Annotated[
        float | None, typer.Option(min=0, help="All whose last turn is older than this many days.")
    ] = None,
    reason: Annotated[str, typer.Option("--reason", "-m", help="Why; kept in the tombstones.")] = "asked to",
    yes: YesOption = False,
    name: WhoOption = "",
    config: ConfigOption = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Erase what was said for good; that there was a conversation, how it ended and its reward stay."""
    from tutelage.serving import retention

    if bool(ids) == (older_than is not None):
        raise ConfigError("name conversations, or say --older-than DAYS")
    with opened(config, overrides, remember=False) as workspace:
        known = {str(row["id"]): str(row["ending"]) for row in _rows(workspace)}
        if unknown := [id for id in ids or () if id not in known]:
            raise RecordError(f"there is no served conversation {unknown[0]!r}")
        until = datetime.now(UTC) - timedelta(days=older_than or 0)
        which = ", ".join(ids) if ids else f"all before {until:%Y-%m-%d %H:%M} UTC"
        if not yes:
            print(f"served conversations: {which}", file=sys.stderr)
            typer.confirm("erase them? This cannot be undone", abort=True, err=True)
        by = f"hand:{who(name)}"
        if ids:
            open_ones = [id for id in ids if known[id] == UNDER_WAY]
            over = [id for id in ids if known[id] != UNDER_WAY]
            gone = retention.forget(workspace, over, open_ones, reason=reason, by=by)
        else:
            gone = retention.forget_before(workspace, until, reason=reason, by=by)
    if as_json:
        emit_json({"forgotten": gone.trajectories, "under_way": gone.under_way})
    else:
        print(f"{gone.total} served conversations are forgotten")


def _rows(workspace: "Workspace", caller: str | None = None, limit: int | None = None) -> list[dict[str, object]]:
    """Those that were judged, of them the newest ones, and behind them all that are under way."""
    from tutelage.record_forgetting import FEEDBACK
    from tutelage.serving.sessions import open_turns

    rows: list[dict[str, object]] = []
    blocked = {key: sum(map(len, body["blocked"])) for key, body in workspace.record.items(FEEDBACK).items()}
    for item in workspace.record.served(caller=caller, limit=limit):
        rows.append(
            {
                "id": item.id,
                "last": f"{item.created:%Y-%m-%d %H:%M}",
                "caller": item.origin.partition(":")[2],
                "tenant": item.tenant,
                "policy": item.policy,
                "turns": len(item.steps),
                "ending": item.ending.value,
                "blocked": blocked.get(item.id, 0),
                "goal": " ".join(item.goal.split()),
            }
        )
    for session, turns in open_turns(workspace.record).items():
        if caller not in (None, turns[0].caller):
            continue
        rows.append(
            {
                "id": session,
                "last": f"{turns[-1].created:%Y-%m-%d %H:%M}",
                "caller": turns[0].caller,
                "tenant": turns[0].tenant,
                "policy": turns[-1].student,
                "turns": len(turns),
                "ending": UNDER_WAY,
                "blocked": sum(len(turn.blocked) for turn in turns),
                "goal": " ".join(turns[0].came[-1].content.split()),
            }
        )
    return rows


def _show_turns(turns: "list[Turn]", as_json: bool) -> None:
    if as_json:
        emit_json([turn.model_dump(mode="json") for turn in turns])
        return
    print(f"{turns[0].session}  by {turns[0].caller}, {UNDER_WAY}")
    for turn in turns:
        print(f"\n-- turn {turn.index}, {turn.student}")
        for message in turn.came:
            tell(f"{message.role}: {message.content}")
        calls = "".join(f"\n  calls {call.name}({call.arguments})" for call in turn.reply.calls)
        tell(f"assistant: {turn.reply.content}{calls}")
        if turn.blocked:
            print(f"held back by {', '.join(turn.blocked)}")


def _show_trajectory(item: "Trajectory") -> None:
    print(f"{item.id}  by {item.origin.partition(':')[2]}, {item.policy}: {item.ending}, reward {item.reward:+.2f}")
    for shown in item.shown:
        tell(f"shown {shown.id} v{shown.version}: {shown.text}")
    for index, step in enumerate(item.steps):
        tell(f"\n-- turn {index}\nasked: {step.observation}\nassistant: {step.reply}")
        tell(f"{step.reward:+.0f} {step.diagnosis.cause}: {step.diagnosis.evidence}")
