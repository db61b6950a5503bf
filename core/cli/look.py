"""Commands that only look: environments, configuration, the parts of the machine, the report."""

from pathlib import Path
from typing import Annotated, Any

import typer

from tutelage.cli.app import ConfigOption, JsonOption, SetOption, app, emit_json, emit_rows, load, opened
from tutelage.cli.legible import tell
from tutelage.types import Split

env = typer.Typer(help="List environments and show one.", no_args_is_help=True)
config_app = typer.Typer(help="Show the settings a command would use.", no_args_is_help=True)
app.add_typer(env, name="env")
app.add_typer(config_app, name="config")


@env.command("list")
def list_environments(as_json: JsonOption = False) -> None:
    """All environments that a short name stands for."""
    from tutelage.environments.base import environment_names

    rows = [{"name": name, "class": path} for name, path in environment_names().items()]
    emit_rows(rows, ("name", "class"), as_json=as_json, empty="none")


@env.command("show")
def show_environment(
    name: Annotated[str, typer.Argument(help="Short name or dotted path.")],
    settings: Annotated[
        list[str] | None, typer.Option("--set", "-s", metavar="KEY=VALUE", help="A setting of it; repeatable.")
    ] = None,
    family: Annotated[
        str | None, typer.Option("--family", "-f", help="Open one task of this family and print it.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Which of its train tasks.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """What an environment offers, and what an agent sees of one of its tasks."""
    from tutelage.config import load_config
    from tutelage.environments.suite import Suite
    from tutelage.errors import UnknownName

    given = load_config(None, [f"environments.0.settings.{item}" for item in settings or ()])
    suite = Suite.open([(name, (), given.environments[0].settings)])
    found = suite.parts[0].environment
    system = found.system or getattr(found, "intro", "")  # the tools are offered with a task
    data: dict[str, Any] = {"name": found.name, "system": system, "families": list(found.families())}
    if family is not None:
        if family not in found.families():
            raise UnknownName(f"{found.name} has no task family {family!r}; `tutelage env show {name}` lists them")
        environment = suite.make(found.name)
        try:
            task = next(iter(found.tasks(Split.TRAIN, [family], start=seed)), None)
            if task is None:
                raise UnknownName(f"{found.name} has no train task of family {family!r}")
            observation, info = environment.reset(options={"task": task})
            data["system"] = environment.system
        finally:
            environment.close()
        data |= {"task": task.id, "goal": info["goal"], "observation": observation}
    if as_json:
        emit_json(data)
    elif family is not None:
        tell(f"{data['system']}\n\nGoal: {data['goal']}\nObservation:\n{data['observation']}")
    else:
        tell(f"{found.name}: {len(data['families'])} task families\n\n{data['system']}\n")
        tell(", ".join(data["families"]))


@config_app.command("show")
def show_config(config: ConfigOption = None, overrides: SetOption = None) -> None:
    """The resolved settings, as JSON."""
    print(load(config, overrides).model_dump_json(indent=2))


@app.command()
def doctor(as_json: JsonOption = False) -> None:
    """Check every part that a run needs, and say how to get what is missing."""
    from tutelage.doctor import checks

    found = checks()
    if as_json:
        emit_json([vars(check) for check in found])
    else:
        marks = {True: "ok     ", False: "MISSING", None: "note   "}
        for check in found:
            print(f"{marks[check.ok]} {check.name}: {check.detail}")
            if not check.ok and check.remedy:
                print(f"        → {check.remedy}")
    if any(check.ok is False for check in found):
        raise typer.Exit(2)


@app.command()
def report(
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="File to write; default WORKSPACE/report.html.")
    ] = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
) -> None:
    """Write one self-contained HTML page: results, curves, experiences, trajectories."""
    from tutelage.report import write_report

    with opened(config, overrides) as workspace:
        print(write_report(workspace.record, out or workspace.folder / "report.html"))
