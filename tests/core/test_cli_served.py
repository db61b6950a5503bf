"""What the commands about served conversations put on a terminal."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tutelage.cli import served
from tutelage.cli.app import app
from tutelage.cli.legible import legible
from tutelage.config import CONFIG_FILE, Config
from tutelage.record import Record
from tutelage.serving.sessions import TURN, Turn
from tutelage.serving.types import ChatMessage, ToolCall

COMMANDS = (served,)
"""Imported, they are known to the application."""
OBEYED = "\x1b]0;title\x07\x1b[2J\x9b2J\r\u202e"


@pytest.mark.parametrize("command", [["show", "ses_1"], ["list"]])
def test_a_caller_does_not_command_the_terminal_of_who_reads(tmp_path: Path, command: list[str]) -> None:
    config = Config.model_validate({"workspace": tmp_path / "w", "student": {"weights": "tiny"}})
    record = Record.open(tmp_path / "w")
    (tmp_path / "w" / CONFIG_FILE).write_text(config.model_dump_json())
    turn = Turn(
        session="ses_1",
        index=0,
        caller="ann",
        tenant="default",
        came=(ChatMessage("user", f"{OBEYED}Grüße,\n\tAda"),),
        reply=ChatMessage("assistant", OBEYED, (ToolCall("c", OBEYED, OBEYED),)),
        student="s",
        finish="stop",
        memory=False,
        asked="",
        created=datetime.now(UTC),
    )
    record.put(TURN, turn.key, turn.model_dump(mode="json"))
    record.close()

    done = CliRunner().invoke(app, ["served", *command, "-s", f"workspace={tmp_path / 'w'}"], catch_exceptions=False)

    assert done.exit_code == 0, done.output
    assert "Grüße," in done.stdout
    assert not set(done.stdout) & set("\x1b\x07\x9b\r\u202e")


def test_what_is_legible_stays() -> None:
    assert legible("two\n\tlines, ünïcode 👩‍👧 שלום") == "two\n\tlines, ünïcode 👩‍👧 שלום"
