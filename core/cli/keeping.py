"""Commands that keep a workspace safe: backup and restore."""

from pathlib import Path
from typing import Annotated

import typer

from tutelage.cli.app import ConfigOption, SetOption, app, load


@app.command("backup")
def make_backup(
    file: Annotated[Path, typer.Argument(help="New file to write, e.g. monday.tar.gz.")],
    students: Annotated[bool, typer.Option("--students", help="With the weights of all students.")] = False,
    config: ConfigOption = None,
    overrides: SetOption = None,
) -> None:
    """Write the workspace to one file with digests; a run may go on meanwhile."""
    from tutelage.backup import backup

    manifest = backup(load(config, overrides, existing=True).workspace, file, students=students)
    print(f"{file}: {len(manifest.files)} files, {file.stat().st_size:,} bytes")
    if manifest.without:
        print(f"without the weights of {', '.join(manifest.without)}; --students takes them too")


@app.command("restore")
def restore_backup(
    file: Annotated[Path, typer.Argument(help="File written by `tutelage backup`.")],
    config: ConfigOption = None,
    overrides: SetOption = None,
) -> None:
    """Make a workspace from a backup; one that has something in it is never touched."""
    from tutelage.backup import restore

    folder = load(config, overrides).workspace
    manifest = restore(file, folder)
    print(f"{folder}: {len(manifest.files)} files as of {manifest.created:%Y-%m-%d %H:%M} UTC, all digests right")
    if manifest.without:
        print(f"the weights of {', '.join(manifest.without)} were not backed up")
    print("the memory index is built anew when it is next opened")
