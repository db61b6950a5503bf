"""Commands that do work: run, rollout, extract, train, distill, eval."""

from typing import TYPE_CHECKING, Annotated

import typer

from tutelage.cli.app import (
    ConfigOption,
    EnvironmentsOption,
    JsonOption,
    SetOption,
    app,
    emit_json,
    opened,
    wide_console,
)
from tutelage.types import Split

if TYPE_CHECKING:
    from tutelage.environments.suite import Suite
    from tutelage.forecast import Work

PolicyOption = Annotated[
    str, typer.Option(help="teacher, expert, oracle, student (the promoted one), student@N, or a LiteLLM model string.")
]
FamiliesOption = Annotated[list[str] | None, typer.Option("--family", "-f", help="Only this task family; repeatable.")]


@app.command()
def run(config: ConfigOption = None, overrides: SetOption = None, as_json: JsonOption = False) -> None:
    """Run cycles: collect, judge, extract, consolidate, train, evaluate, gate, evidence. Killed? Run it again."""
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
    """Extract, train, evaluate, gate and gather evidence on the trajectories that are there."""
    _cycles("distill", config, overrides, as_json)


def _cycles(kind: "Work", config: ConfigOption, overrides: SetOption, as_json: bool) -> None:
    from tutelage import loop, results
    from tutelage.progress import reporting
    from tutelage.spending import accounted

    with opened(config, overrides, existing=kind != "run") as workspace, reporting() as report:
        with accounted(workspace, report, kind):
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
    environment: EnvironmentsOption = None,
    memory: Annotated[bool, typer.Option("--memory/--no-memory", help="Show experiences, enforce guardrails.")] = False,
    config: ConfigOption = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run an agent against the environment and record its trajectories."""
    from tutelage import measure
    from tutelage.progress import reporting

    with opened(config, overrides, existing=False, environments=environment) as workspace, reporting() as report:
        suite = measure.playable(workspace, policy, workspace.suite.only(family or ()), report)
        turn = len(suite.families)
        tasks = suite.tasks(split, start * turn, episodes * turn)
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
    environment: EnvironmentsOption = None,
    memory: Annotated[bool, typer.Option("--memory/--no-memory", help="Show experiences, enforce guardrails.")] = False,
    covered: Annotated[bool, typer.Option("--covered", help="All families the scripted expert covers.")] = False,
    config: ConfigOption = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a policy per task family, with intervals.

    An oracle checks the environment instead: all its tasks, whatever -n and --split say.
    """
    from tutelage import measure
    from tutelage.progress import reporting

    with opened(config, overrides, existing=False, environments=environment) as workspace, reporting() as report:
        suite = measure.playable(workspace, policy, workspace.suite.only(family or ()), report)
        if covered:
            suite = suite.only(_covered(suite))
        if policy == "oracle":
            arm = measure.replay_gold(workspace, suite, report)
        else:
            arm = measure.evaluate_policy(
                workspace, policy, suite, split=split, episodes=episodes, memory=memory, report=report
            )
    if as_json:
        emit_json(arm.model_dump(mode="json"))
    else:
        wide_console().print(measure.family_table(arm))


def _covered(suite: "Suite") -> list[str]:
    from tutelage.agents.experts import covered_families, expert_names
    from tutelage.errors import ConfigError

    found = [f"{name}/{family}" for name in suite.names if name in expert_names() for family in covered_families(name)]
    if not found:
        raise ConfigError(f"no scripted expert covers any of {', '.join(suite.names)}")
    return found
