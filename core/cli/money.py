"""The command on money: what work will cost, and what has been spent."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tutelage.cli.app import ConfigOption, JsonOption, SetOption, app, emit_json, load, wide_console

if TYPE_CHECKING:
    from rich.table import Table

    from tutelage.config import Config
    from tutelage.forecast import Forecast
    from tutelage.usage import Usage
    from tutelage.workspace import Workspace


@app.command()
def cost(
    tasks: Annotated[
        int | None, typer.Option(min=1, help="Designed tasks to forecast an annotation for; default annotate.tasks.")
    ] = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """What a cycle and an annotation will cost, and what has been spent so far, by role and by cycle.

    Nothing is called and nothing is written. The forecast uses this workspace's own episodes and calls where there
    are any; prices are those of LiteLLM's bundled list.
    """
    from tutelage.forecast import forecast
    from tutelage.spending import told, warnings
    from tutelage.usage import in_all

    with _looked_at(load(config, overrides)) as workspace:
        count = tasks or workspace.config.annotate.tasks
        run, annotation = forecast(workspace, "run"), forecast(workspace, "annotate", count)
        by_role, by_cycle = workspace.usage.roles(), _by_cycle(workspace)
        limits = warnings(workspace, run.total)
    if as_json:
        emit_json(
            {
                "run": _body(run),
                "annotate": {"tasks": count, **_body(annotation)},
                "spent": {
                    "total": in_all(by_role).model_dump(),
                    "by_role": {role: used.model_dump() for role, used in by_role.items()},
                    "by_cycle": {cycle: {r: u.model_dump() for r, u in roles.items()} for cycle, roles in by_cycle},
                },
                "warnings": limits,
            }
        )
        return
    console = wide_console()
    for found, title in (
        (run, "one cycle (tutelage run)"),
        (annotation, f"{count} designed tasks (tutelage annotate)"),
    ):
        console.print(_forecast_table(found, f"Forecast: {title}"))
        if found.paid:
            print(f"paid for: about {told(found)}\n")
    for line in dict.fromkeys([*run.assumptions, *annotation.assumptions, *limits]):
        print(f"- {line}")
    print()
    if by_role:
        console.print(_spent_table(by_role, by_cycle))
    else:
        print("Nothing has been spent so far.")


@contextmanager
def _looked_at(config: "Config") -> Iterator["Workspace"]:
    """The workspace, left as it is; where there is none, an empty one for the moment."""
    from tutelage.config import CONFIG_FILE
    from tutelage.workspace import Workspace

    with TemporaryDirectory() as folder:
        if not (config.workspace / CONFIG_FILE).exists():
            config = config.model_copy(update={"workspace": Path(folder)})
        workspace = Workspace(config, remember=False)
        try:
            yield workspace
        finally:
            workspace.close()


def _by_cycle(workspace: "Workspace") -> list[tuple[str, dict[str, "Usage"]]]:
    """Usage by role of each cycle, and of what belongs to none."""
    from tutelage.usage import BY_CYCLE, Usage

    cycles: dict[str, dict[str, Usage]] = {}
    rest = workspace.usage.roles()
    for key, body in workspace.record.items(BY_CYCLE).items():
        cycle, _, role = key.partition("/")
        cycles.setdefault(cycle, {})[role] = used = Usage.model_validate(body)
        rest[role] = rest[role].minus(used)
    by_hand = {role: used for role, used in rest.items() if used.calls or used.replayed}
    return [*cycles.items(), *([("by hand", by_hand)] if by_hand else [])]


def _body(found: "Forecast") -> dict[str, Any]:
    return {**found.model_dump(mode="json"), "total": found.total.model_dump()}


def _forecast_table(found: "Forecast", title: str) -> "Table":
    from rich.table import Table

    from tutelage.usage import money

    table = _table(Table(title=title), ("role", "model"), ("calls", "prompt tokens", "completion tokens", "dollars"))
    for line in found.lines:
        known = "unknown" if line.dollars is None else money(line.dollars)
        table.add_row(
            line.role,
            line.model,
            f"{line.calls:,}",
            f"{line.prompt_tokens:,}",
            f"{line.completion_tokens:,}",
            "0 (scripted)" if line.scripted else known,
        )
    return table


def _spent_table(by_role: dict[str, "Usage"], by_cycle: list[tuple[str, dict[str, "Usage"]]]) -> "Table":
    from rich.table import Table

    from tutelage.usage import in_all, money

    numbers = ("calls", "replayed", "prompt tokens", "of them cached", "completion tokens", "dollars", "without price")
    table = _table(Table(title="Spent so far"), ("cycle", "role"), numbers)
    rows = [(cycle, role, used) for cycle, roles in by_cycle for role, used in roles.items()]
    for cycle, role, used in [*rows, ("all", "all", in_all(by_role))]:
        counts = (used.calls, used.replayed, used.prompt_tokens, used.cached_tokens, used.completion_tokens)
        table.add_row(cycle, role, *(f"{count:,}" for count in counts), money(used.dollars), f"{used.unpriced:,}")
    return table


def _table(table: "Table", texts: tuple[str, ...], numbers: tuple[str, ...]) -> "Table":
    for name in (*texts, *numbers):
        table.add_column(name, justify="right" if name in numbers else "left", no_wrap=True)
    return table
