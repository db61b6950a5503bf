"""Commands about training: what memory it needs, and the training set as files."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from tutelage.cli.app import ConfigOption, JsonOption, SetOption, app, emit_json, emit_rows, load, opened


class Format(StrEnum):
    """File formats of training sets."""

    PARQUET = "parquet"
    JSONL = "jsonl"


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


@app.command("training-set")
def training_set(
    out: Annotated[Path, typer.Argument(help="New folder to write.")],
    format: Annotated[Format, typer.Option(help="What `datasets` loads; parquet is smaller.")] = Format.PARQUET,
    config: ConfigOption = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write what students learn from as token rows with a manifest; nothing held out, forgotten or untrusted."""
    from tutelage.training_set import export

    with opened(config, overrides, remember=False) as workspace:
        manifest = export(workspace, out, format.value)
    if as_json:
        emit_json(manifest)
        return
    for name, part in manifest["parts"].items():
        left_out = ", ".join(f"{count} {why}" for why, count in part["left out"].items())
        print(f"{name}: {part['rows']} rows" + (f"; left out: {left_out}" if left_out else ""))
    print(f"written to {out}")
