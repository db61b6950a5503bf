"""Commands about training: what memory it needs."""

from typing import Any

from tutelage.cli.app import ConfigOption, JsonOption, SetOption, app, emit_json, emit_rows, load, opened


@app.command()
def need(config: ConfigOption = None, overrides: SetOption = None, as_json: JsonOption = False) -> None:
    """Estimate how much memory each training stage takes, and compare it with what is free."""
    from tutelage.config import CONFIG_FILE
    from tutelage.training.need import available, gibibytes, needs

    found, name, trajectories = load(config, overrides), "", []
    if (found.workspace / CONFIG_FILE).exists():
        from tutelage.cycle import experience_trajectories
        from tutelage.training.base import weights_of

        with opened(config, overrides, remember=False) as workspace:
            trajectories = experience_trajectories(workspace)
            name = weights_of(workspace.current_student(), workspace.folder)
    stages, there = needs(found, name or found.student.weights, trajectories), available()
    if as_json:
        emit_json({"free": there, "stages": [{"stage": s.stage, "total": s.total, "parts": s.parts} for s in stages]})
        return
    columns = {f"{place} {stage.stage}": stage for place, stage in enumerate(stages)}
    parts = dict.fromkeys(part for stage in stages for part in stage.parts)
    rows: list[dict[str, Any]] = [
        {"GiB": part, **{title: f"{stage.parts.get(part, 0) / 2**30:.2f}" for title, stage in columns.items()}}
        for part in parts
    ]
    rows.append({"GiB": "in all", **{title: f"{stage.total / 2**30:.2f}" for title, stage in columns.items()}})
    emit_rows(rows, ("GiB", *columns), as_json=False, empty="no stages")
    longest = "the longest episodes so far" if trajectories else "episodes of student.max_length tokens"
    print(f"{gibibytes(there)} are free; reckoned with {longest}")
