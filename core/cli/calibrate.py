"""The command that measures a judge against programmatic checks."""

from typing import Annotated

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


@app.command()
def calibrate(
    judge: Annotated[str | None, typer.Option(help="LiteLLM model string; default: the configured judge.")] = None,
    episodes: Annotated[int, typer.Option("-n", min=1, help="Episodes over all environments.")] = 40,
    votes: Annotated[
        int | None, typer.Option(min=1, help="Times each episode is judged; the majority decides.")
    ] = None,
    environment: EnvironmentsOption = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure how far a judge can be believed.

    It judges real episodes of environments that check themselves; most of
    them have injected mistakes, and about half of them fail.

    Precision: of the episodes it calls successful, the share that the check
    accepted. Low precision lets bad trajectories into memory and weights, so
    it decides whether the judge may filter (annotate.min_precision). A judge
    that never says yes has no precision, and fewer than five yeses are too few.

    Recall: of the accepted episodes, the share it calls successful. Low
    recall only wastes good ones.

    Agreement: the share on which judge and check say the same.

    In brackets stand 95 % Wilson intervals; more episodes (-n) narrow them.
    """
    from tutelage.judging import calibrate_judge, calibration_table
    from tutelage.progress import reporting

    given = {"teacher.judge": judge, "teacher.votes": votes}
    wanted = [*(overrides or []), *(f"{key}={value}" for key, value in given.items() if value is not None)]
    with (
        opened(config, wanted, existing=False, environments=environment, remember=False) as workspace,
        reporting() as report,
    ):
        found = calibrate_judge(workspace, "", episodes, report)
        least = workspace.config.annotate.min_precision
    if as_json:
        emit_json({**found.model_dump(mode="json"), "fit": found.fit(least), "why": found.why(least)})
        return
    wide_console().print(calibration_table(found))
    print(f"{'fit' if found.fit(least) else 'not fit'} to filter: {found.why(least)}")
