"""The Typer application and what all commands share: options, output, exit codes."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from tutelage import __version__
from tutelage.cli.legible import legible, tell

if TYPE_CHECKING:
    from rich.console import Console

    from tutelage.config import Config
    from tutelage.workspace import Workspace

app = typer.Typer(
    name="tutelage",
    help="Distil a teacher agent's experience into a small local student that keeps getting better.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="TOML file; without one, the settings the workspace was last used with."),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", metavar="KEY=VALUE", help="Override a setting, e.g. -s act.width=4; repeatable."),
]
EnvironmentsOption = Annotated[
    list[str] | None,
    typer.Option("--env", "-e", help="Act in this environment instead of the configured ones; repeatable."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of text for people.")]


def _version(wanted: bool) -> None:
    if wanted:
        print(f"tutelage {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def fail(message: str) -> NoReturn:
    """One clear line and exit code 2."""
    tell(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)


def load(
    config: Path | None, overrides: list[str] | None, *, existing: bool = False, environments: Sequence[str] = ()
) -> "Config":
    from tutelage.workspace import find_config

    return find_config(config, overrides or [], existing=existing, environments=environments)


@contextmanager
def opened(
    config: Path | None,
    overrides: list[str] | None,
    *,
    existing: bool = True,
    environments: Sequence[str] | None = None,
    remember: bool = True,
) -> Iterator["Workspace"]:
    """The workspace of a command; `existing` ones refuse to make it, `environments` replace the configured ones.

    With other environments, or with `remember` off, later commands go on with the settings kept before.
    """
    from tutelage.workspace import Workspace

    found = load(config, overrides, existing=existing, environments=environments or ())
    workspace = Workspace(found, remember=remember and not environments)
    try:
        yield workspace
    finally:
        workspace.close()


def emit_json(data: Any) -> None:
    print(json.dumps(data, indent=2, ensure_ascii=False, default=str))


def emit_rows(rows: Sequence[dict[str, Any]], columns: Sequence[str], *, as_json: bool, empty: str) -> None:
    """Rows as JSON with all their keys, or as a table of `columns`."""
    if as_json:
        emit_json(list(rows))
        return
    if not rows:
        print(empty)
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in columns:
        # What is copied to other commands is never cut; long texts are.
        if column in ("goal", "text", "policy"):
            table.add_column(column, no_wrap=True, overflow="ellipsis", max_width=90)
        else:
            width = max(len(_cell(row.get(column, ""))) for row in rows)
            table.add_column(column, no_wrap=True, min_width=max(width, len(column)))
    for row in rows:
        table.add_row(*(_cell(row.get(column, "")) for column in columns))
    wide_console().print(table)


def wide_console() -> "Console":
    """A console that does not squeeze tables where there is no terminal to fit them into."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console.width = 160
    return console


def _cell(value: Any) -> str:
    from rich.markup import escape

    if value is None:
        return ""
    return escape(f"{value:.3f}" if isinstance(value, float) else legible(str(value)))
