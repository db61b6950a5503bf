"""The command that designs tasks and has them done, judged and filtered."""

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
    opened,
    wide_console,
)

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
    from tutelage.forecast import announce, settle
    from tutelage.funnel import funnel_table
    from tutelage.progress import reporting

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
    wanted = [*(overrides or []), *(f"{key}={value}" for key, value in given.items() if value is not None)]
    with opened(config, wanted, existing=False, environments=environment) as workspace, reporting() as report:
        before = announce(workspace, report, "annotate")
        run = name or _next_run(workspace)
        found = work(workspace, run, workspace.config.annotate.tasks, report)
        settle(workspace, report, before)
    if as_json:
        emit_json({"run": run, **found.model_dump(mode="json")})
    else:
        wide_console().print(funnel_table(found))


def _next_run(workspace: "Workspace") -> str:
    """The name of the next run by hand over these environments; of an unfinished one, if there is."""
    start = " + ".join(workspace.suite.names)
    return f"{start} {1 + sum(key.startswith(f'{start} ') for key in workspace.record.items('annotation'))}"
