"""What the documentation tells people to type, to set and to look for is there."""

import ast
import configparser
import re
import shlex
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
import typer
import yaml
from pydantic import BaseModel

from tutelage.cli import main
from tutelage.cli.app import app
from tutelage.config import Config

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").rglob("*.md")])
UNITS = sorted((ROOT / "examples" / "systemd").iterdir())
SOURCES = ("core", "agents", "memory", "training", "environments")
OPERATIONS = ROOT / "docs" / "operations.md"
SHORT = 6
"""Characters of a quoted piece of a message below which it says nothing."""


@cache
def commands() -> Any:
    """The whole command line, with every command registered."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["tutelage", "--version"])
        with pytest.raises(SystemExit):
            main()
    return typer.main.get_command(app)


def said(text: str) -> Iterator[str]:
    """Command lines in blocks of code and in inline code, without `tutelage` itself."""
    for block in re.findall(r"^```\w*\n(.*?)^```", text, re.M | re.S) + re.findall(r"^ {4}\S.*$", text, re.M):
        for line in block.replace("\\\n", " ").splitlines():
            yield from re.findall(r"(?:^|\s|/)tutelage ([a-z-].*?)(?=$| #| \| | && |;)", line)
    yield from re.findall(r"`tutelage ([a-z-][^`]*)`", " ".join(text.split()))


def wrong(line: str) -> str | None:
    """What a command line has that the command does not; ``A|B`` stands for either."""
    group, words = commands(), shlex.split(re.sub(r"[\[\]…]", " ", line), posix=True)
    while words and hasattr(group, "commands"):
        name = words.pop(0)
        if name.startswith("-"):
            break
        if not all(part in group.commands for part in name.split("|")):
            return f"no command {name!r}"
        group = group.commands[name.split("|")[-1]]
    known = {option for parameter in group.params for option in (*parameter.opts, *parameter.secondary_opts)}
    unknown = [word for word in words if re.match(r"--?[a-z]", word) and word.partition("=")[0] not in known]
    return f"no option {', '.join(unknown)}" if set(unknown) - {"--help"} else None


def test_what_is_wrong_with_a_command_line_is_seen() -> None:
    assert wrong("memory query 'a b' --kind skill --explain") is None
    assert wrong("students list|rollback") is None
    assert wrong("students list|unmake") == "no command 'list|unmake'"
    assert wrong("memory query x --kin skill") == "no option --kin"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_in_the_documentation_exist(page: Path) -> None:
    found = {line: wrong(line) for line in said(page.read_text())}
    assert not {line: problem for line, problem in found.items() if problem}


def test_commands_in_messages_and_docstrings_exist() -> None:
    found = {line: wrong(line) for text in texts() for line in said(text) if "{" not in line}
    assert found, "messages name commands"
    assert not {line: problem for line, problem in found.items() if problem}


def test_settings_in_the_documentation_of_operations_exist() -> None:
    names = set(
        re.findall(r"`((?:jobs|serve|memory|student|budget|triggers)\.[a-z_.]+)(?: = [^`]*)?`", OPERATIONS.read_text())
    )
    assert names, "it names settings"
    assert not {name for name in names if not _is_setting(name)}


def test_messages_that_operations_explains_are_said_somewhere() -> None:
    """Each row there that begins with a quoted message; ``…`` stands for what differs."""
    _, _, section = OPERATIONS.read_text().partition("\n## Messages\n")
    rows = re.findall(r"^\| `([^`]*)`", section.partition("\n## ")[0], re.M)
    assert len(rows) > 10, "it explains messages"
    pieces = {row: [part.strip() for part in row.split("…") if len(part.strip()) >= SHORT] for row in rows}
    assert all(pieces.values()), "a message of which nothing is fixed cannot be looked for"
    source = texts()
    assert not {row for row, parts in pieces.items() for part in parts if not any(part in text for text in source)}


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_units_start_commands_that_exist(unit: Path) -> None:
    # Some keys stand twice (ExecStart), and a percent sign is systemd's own.
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(unit)
    if unit.suffix == ".timer":
        assert unit.with_suffix(".service").exists()
        return
    lines = re.sub(r"\\\n\s*", " ", unit.read_text())
    started = re.findall(r"\.venv/bin/tutelage (.*?)['\n]", lines)
    assert started
    assert not [problem for line in started if (problem := wrong(line.replace('"', "")))]
    assert parser["Service"]["NoNewPrivileges"] == "yes"


def test_the_cron_job_starts_a_command_that_exists() -> None:
    spec = yaml.safe_load((ROOT / "examples" / "kubernetes" / "cronjob.yaml").read_text())["spec"]
    program, *words = spec["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["command"]
    assert program == "tutelage"
    assert wrong(shlex.join(words)) is None


@cache
def texts() -> frozenset[str]:
    """All texts in the source; of those with values in them also the whole, with ``{}`` for each."""
    found: set[str] = set()
    for path in (path for folder in SOURCES for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
            elif isinstance(node, ast.JoinedStr):
                found.add("".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values))
    return frozenset(found)


def _is_setting(name: str) -> bool:
    place: Any = Config
    for part in name.split("."):
        if get_origin(place) is dict:
            return True  # its keys are anybody's
        if get_origin(place) is tuple:
            place = get_args(place)[0]
        if not (isinstance(place, type) and issubclass(place, BaseModel) and part in place.model_fields):
            return False
        place = place.model_fields[part].annotation
    return True
