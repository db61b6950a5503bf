"""Commands that do work: run, rollout, extract, train, distill, eval."""

from typing import Annotated

import typer

from tutelage.cli.app import ConfigOption, JsonOption, SetOption, app, emit_json, opened, wide_console
from tutelage.types import Split

PolicyOption = Annotated[
    str, typer.Option(help="teacher, expert, student (the promoted one), student@N, or a LiteLLM model string.")
]
FamiliesOption = Annotated[list[str] | None, typer.Option("--family", "-f", help="Only this task family; repeatable.")]


@app.command()
def run(config: ConfigOption = None, overrides: SetOption = None, as_json: JsonOption = False) -> None:
    """Run cycles: collect, judge, extract, consolidate, train, evaluate, gate. Killed? Run it again."""
    _cycles("run", config, overrides, as_json)


@app.command()
def extract(config: ConfigOption = None, overrides: SetOption = None, as_json: JsonOption = False) -> None:
    """Judge the trajectories not judged yet and distil them into experiences."""
    _cycles("extract", config, overrides, as_json)


@app.command()
def train(config: ConfigOption = None, overrides: SetOption = None, as_json: JsonOption = False) -> None:
    """Run the training stages on what the record holds; the result is not promoted."""
    _cycles("train", config, overrides, as_json)


@app.command()
def distill(config: ConfigOption = None, overrides: SetOption = None, as_json: JsonOption = False) -> None:
    """Extract, train, evaluate and gate on the trajectories that are there."""
    _cycles("distill", config, overrides, as_json)


def _cycles(kind: str, config: ConfigOption, overrides: SetOption, as_json: bool) -> None:
    from tutelage import loop, results
    from tutelage.progress import reporting

    with opened(config, overrides, existing=kind != "run") as workspace, reporting() as report:
        cycle = loop.run(workspace, kind, report)
        table = results.results_table(workspace.record, cycle)
        data = results.results_json(workspace.record, cycle)
    if as_json:
        emit_json(data)
    elif table.row_count:
        wide_console().print(table)


@app.command()
def rollout(
    policy: PolicyOption = "teacher",
    split: Annotated[Split, typer.Option(help="Which tasks; test tasks never feed memory or training.")] = Split.TRAIN,
    episodes: Annotated[int, typer.Option("-n", min=1, help="Episodes per task family.")] = 1,
    start: Annotated[int, typer.Option(min=0, help="Index of the first seed.")] = 0,
    family: FamiliesOption = None,
    memory: Annotated[bool, typer.Option("--memory/--no-memory", help="Show experiences, enforce guardrails.")] = False,
    config: ConfigOption = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run an agent against the environment and record its trajectories."""
    from tutelage import measure
    from tutelage.progress import reporting

    with opened(config, overrides, existing=False) as workspace, reporting() as report:
        tasks = workspace.environment.tasks(split, _families(family, workspace.families), count=episodes, start=start)
        found = measure.rollout(workspace, tasks, policy, memory=memory, report=report)
    rows = [
        {"id": item.id, "task": item.task.id, "ending": item.ending.value, "steps": len(item.steps)} for item in found
    ]
    solved = sum(item.success for item in found)
    if as_json:
        emit_json({"episodes": len(found), "solved": solved, "trajectories": rows})
        return
    for row in rows:
        print(f"{row['id']}  {row['ending']:<18} {row['steps']} steps  {row['task']}")
    print(f"{solved} of {len(found)} solved")


@app.command("eval")
def evaluate(
    policy: PolicyOption = "student",
    split: Annotated[Split, typer.Option(help="Which tasks.")] = Split.VALIDATION,
    episodes: Annotated[int, typer.Option("-n", min=1, help="Episodes per task family.")] = 4,
    family: FamiliesOption = None,
    memory: Annotated[bool, typer.Option("--memory/--no-memory", help="Show experiences, enforce guardrails.")] = False,
    covered: Annotated[bool, typer.Option("--covered", help="All families the scripted expert covers.")] = False,
    config: ConfigOption = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a policy per task family, with intervals."""
    from tutelage import measure
    from tutelage.progress import reporting

    with opened(config, overrides, existing=False) as workspace, reporting() as report:
        if covered:
            from tutelage.agents.experts import covered_families

            families = covered_families(workspace.environment.name)
        else:
            families = _families(family, workspace.families)
        arm = measure.evaluate_policy(
            workspace, policy, split=split, families=families, episodes=episodes, memory=memory, report=report
        )
    if as_json:
        emit_json(arm.model_dump(mode="json"))
    else:
        wide_console().print(measure.family_table(arm))


def _families(wanted: list[str] | None, known: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(wanted) if wanted else known
