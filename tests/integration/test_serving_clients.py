"""`tutelage serve` as people start it: a process with a real student, real clients, and an end in order."""

import logging
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest
from commands import command
from openai import OpenAI
from serve_process import PATIENCE, serving

from tutelage.config import Config
from tutelage.memory.server.auth import make_token
from tutelage.record import Record

ASKED: Any = [{"role": "user", "content": "Say something."}]


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    config = Config.model_validate(
        {
            "workspace": tmp_path,
            "student": {"weights": "tiny"},
            "triggers": [{"name": "nightly", "cron": "0 3 29 2 *"}],  # hardly while this runs
            "serve": {"max_new_tokens": 64},
        }
    )
    (tmp_path / "config.json").write_text(config.model_dump_json())
    Record.open(tmp_path).close()
    return tmp_path


def test_a_real_student_answers_many_clients_and_lets_them_finish(workspace: Path) -> None:
    key = make_token(workspace / "tokens.toml", "ann")

    def ask(ai: OpenAI, *, stream: bool) -> str:
        given: Any = {"model": "student", "messages": ASKED, "max_tokens": 40, "seed": 1}
        if not stream:
            return ai.chat.completions.create(**given).choices[0].message.content or ""
        chunks = list(ai.chat.completions.create(**given, stream=True))
        assert chunks[-1].choices[0].finish_reason in ("stop", "length")
        return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)

    with serving(workspace) as (url, process, log), OpenAI(base_url=url, api_key=key, max_retries=0) as ai:
        said = log.read_text()
        assert "student@0 at" in said
        assert "triggers: nightly" in said
        with ThreadPoolExecutor(12) as pool:
            replies = list(pool.map(lambda number: ask(ai, stream=number % 2 == 0), range(12)))
        assert len(set(replies)) == 1, "greedy, so the same whichever way it came and beside whatever else"
        assert replies[0]
        with pytest.raises(openai.AuthenticationError):
            ask(ai.with_options(api_key="wrong"), stream=False)
        with pytest.raises(openai.BadRequestError, match="maximum context length"):
            ai.chat.completions.create(model="student", messages=[{"role": "user", "content": "word " * 50_000}])
        stream = ai.chat.completions.create(model="student", messages=ASKED, max_tokens=60, stream=True)
        next(iter(stream))
        process.send_signal(signal.SIGTERM)
        assert list(stream)[-1].choices[0].finish_reason in ("stop", "length"), "requests under way end"
        assert process.wait(PATIENCE) == 0
        with pytest.raises(openai.APIConnectionError):
            ask(ai, stream=False)
    assert not list((workspace / "serving").glob("*.json")), "it no longer says which student it uses"


@pytest.fixture
def _quiet_again() -> Iterator[None]:
    yield
    logging.getLogger("tutelage").setLevel(logging.NOTSET)  # the command lets it say more


@pytest.mark.usefixtures("_quiet_again")
def test_what_makes_no_sense_is_said_in_one_line(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, why in (
        (("--host", "0.0.0.0"), "need tokens"),
        (("--no-chat", "--no-jobs"), "nothing to do"),
        (("--certificate", "x.pem"), "both --certificate and --key"),
        (("--host", "203.0.113.7", "--tokens", "none.toml"), "cannot read the tokens"),
        (("-s", "student.weights=/nowhere"), "/nowhere"),
        (("-s", "triggers=[{name='x', cron='nonsense'}]"), "cron"),
        (("-s", "workspace=/nowhere"), "no workspace"),
    ):
        code = command("serve", "--port", "0", "-s", f"workspace={workspace}", *arguments)
        said = capsys.readouterr().err
        assert (code, len(said.splitlines())) == (2, 1), said
        assert why in said
