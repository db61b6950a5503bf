"""The command that designs tasks and has them done, judged and filtered."""

from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tutelage.cli.app import (
    ConfigOption,
    EnvironmentsOption,
    JsonOption,
    SetOption,
    app,
    emit_json,
    emit_rows,
    opened,
    wide_console,
)
from tutelage.designs import DESIGNED, Design
from tutelage.types import Task

if TYPE_CHECKING:
    from tutelage.workspace import Workspace


@app.command()
def annotate(
    tasks: Annotated[int | None, typer.Option("--tasks", "-n", min=1, help="Tasks to design.")] = None,
    teacher: Annotated[
        str | None, typer.Option(help="LiteLLM model string in all roles that have none of their own.")
    ] = None,
    judge: Annotated[str | None, typer.Option(help="Model that judges, if not the teacher.")] = None,
    name: Annotated[str, typer.Option(help="Names this run; the same name goes on with it.")] = "",
    trust_judge: Annotated[
        bool, typer.Option("--trust-judge", help="Let the judge filter whatever its measured precision.")
    ] = False,
    record: Annotated[Path | None, typer.Option(help="Record every LLM exchange in this file.")] = None,
    replay: Annotated[Path | None, typer.Option(help="Take every LLM exchange from this file; call nobody.")] = None,
    environment: EnvironmentsOption = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Design new tasks, have the teacher do them, judge and filter them.

    What is accepted feeds the next extract, train, distill or run; what failed feeds guardrails.
    """
    from tutelage.annotation import annotate as work
    from tutelage.cycle_lock import cycle_lock
    from tutelage.funnel import funnel_table
    from tutelage.progress import reporting
    from tutelage.spending import accounted

    given = {
        "teacher.model": teacher,
        "teacher.judge": judge,
        "annotate.tasks": tasks,
        "annotate.trust_judge": "true" if trust_judge else None,
        "cassette.path": record or replay,
        "cassette.mode": "record" if record else "replay" if replay else None,
    }
    if record and replay:
        raise typer.BadParameter("give either --record or --replay")
    if name.startswith("cycle "):
        raise typer.BadParameter("names that start with 'cycle ' are those of cycles")
    wanted = [*(overrides or []), *(f"{key}={value}" for key, value in given.items() if value is not None)]
    once = opened(config, wanted, existing=False, environments=environment, remember=False)
    with once as workspace, cycle_lock(workspace.folder, "`tutelage annotate`"), reporting() as report:
        run, asked = name or _next_run(workspace), workspace.config.annotate.tasks
        with accounted(workspace, report, "annotate", asked):
            found = work(workspace, run, asked, report)
    if as_json:
        emit_json({"run": run, **found.model_dump(mode="json")})
    else:
        wide_console().print(funnel_table(found))
        used = "; the next run, extract, train or distill uses what was accepted" if found.accepted else ""
        print(f"`tutelage designs` lists the tasks{used}.")


@app.command()
def designs(config: ConfigOption = None, overrides: SetOption = None, as_json: JsonOption = False) -> None:
    """List the designed and chosen tasks: goal, whom they are for, who designed them, and what became of them."""
    with opened(config, overrides) as workspace:
        record = workspace.record
        outcomes = {
            task: told for body in record.items("annotation").values() for task, told in body["outcomes"].items()
        }
        made = [Design.model_validate(body["design"]) for body in record.items("design").values()]
        chosen = [
            {"id": key, "outcome": outcomes.get(key, "not played"), "goal": "", "author": "chosen by need"}
            for body in record.items("drawn").values()
            for key in (Task.model_validate(task).id for task in body["tasks"])
        ]
    rows = [
        {
            "id": design.task.id,
            "outcome": outcomes.get(design.task.id, "not played"),
            "goal": design.goal,
            **design.model_dump(mode="json", include={"persona", "author", "end"}),
            "base": design.base.id,
        }
        for design in made
        if design.task.family == DESIGNED
    ] + chosen
    columns = ("id", "outcome", "goal", "persona", "author")
    emit_rows(rows, columns, as_json=as_json, empty="no designed tasks; `tutelage annotate` makes some")


def _next_run(workspace: "Workspace") -> str:
    """The name of the next run by hand over these environments; of an unfinished one, if there is."""
    start, finished = " + ".join(workspace.suite.names), workspace.record.items("annotation")
    return next(name for number in count(1) if (name := f"{start} {number}") not in finished)
