import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import OWN, SECRETS, payload, pieces

from tutelage.config import Config, load_config
from tutelage.errors import ConfigError
from tutelage.redaction import CARD, E_MAIL, PHONE, Redactor
from tutelage.secrets import SECRET

REDACTOR = Redactor([OWN])


def in_json(text: str) -> str:
    return json.dumps(text)[1:-1]


SPELT: list[Callable[[str], str]] = [
    str,
    in_json,
    lambda text: in_json(in_json(text)),
    lambda text: "".join(f"\\u{ord(char):04x}" for char in text),
    "\u200b".join,
    "\0".join,
    lambda text: "".join(chr(ord(char) + 0xFEE0) if char.isalnum() or char == "@" else char for char in text),
]
"""Ways to write the same text, character by character."""
ESCAPED = [
    *SPELT,
    lambda text: json.dumps({"value": text}),
    lambda text: json.dumps(json.dumps({"lines": f"x\n{text}\ny"})),
]
"""And within something."""
BEFORE = ["", "I am reached at ", "see (", '{"a": "', "first line\n", "um, ", "x=", "a,", "7,", "_", "…"]
AFTER = ["", " please", ").", '"}', "\nlast line", ", ok?", "!", ",b", ",7", "_", "\0"]


@pytest.mark.parametrize("kind", SECRETS)
@settings(max_examples=25)
@given(data=st.data())
def test_planted_secrets_of_every_kind_are_taken_out(kind: str, data: st.DataObject) -> None:
    secret = data.draw(SECRETS[kind])
    before = data.draw(st.sampled_from(BEFORE))
    after = data.draw(st.sampled_from(AFTER))
    written = data.draw(st.sampled_from(ESCAPED))
    told = before + written(secret) + after

    clean = REDACTOR.text(told)

    given_away = payload(kind, secret)
    assert written(given_away) not in clean
    assert given_away not in clean
    left = [piece for piece in pieces(kind, secret) for spell in SPELT if spell(piece) in clean]
    assert not left
    assert clean != told
    assert REDACTOR.text(clean) == clean, "what was redacted stays as it is"


@pytest.mark.parametrize("written", ESCAPED)
def test_values_of_the_environment_are_taken_out_however_written(
    monkeypatch: pytest.MonkeyPatch, written: Callable[[str], str]
) -> None:
    monkeypatch.setenv("OWN_SERVICE_KEY", "battery@staple")
    clean = REDACTOR.text(f"it is {written('battery@staple')}, yes")
    assert SECRET in clean
    assert written("battery@staple") not in clean


@pytest.mark.parametrize("name", ["token", "page_token", "pwd", "call me at", "number"])
@pytest.mark.parametrize("value", [1234567, 4111111111111111, 5551234567, "tok1234567", [1234567, {"pwd": 1234}]])
def test_json_stays_json_and_says_no_more_than_its_text(name: str, value: Any) -> None:
    """Arguments of calls are read again as JSON; what only the name shows is a secret in them too."""
    told = json.dumps({"a": 1, name: value, "b": [2]})

    clean = json.loads(REDACTOR.document(told))

    assert (clean["a"], clean["b"]) == (1, [2])
    assert (str(value) in str(clean)) == (REDACTOR.text(told) == told)
    assert REDACTOR.document(json.dumps(clean)) == json.dumps(clean)


@pytest.mark.parametrize(
    "told",
    ["Ada,30,+15551234567,10115 Berlin", "...ada@example.org", "ada@example.org--thanks", "ada\0@example.org",
     "redis://:secretpw@host", "Authorization: Basic dXNlcjpwYXNz", "api.telegram.org/bot1234567890:AA" + "x" * 33,
     "password: a1b2c", "password: p(ss1w0rd", "4111 - 1111 - 1111 - 1111"],
)  # fmt: skip
def test_ordinary_forms_are_known(told: str) -> None:
    assert "[" in REDACTOR.text(told)


@pytest.mark.parametrize(
    "text",
    [
        "Basic knowledge and basic principles, basic training; max_token: 4096; {'token': 12345, 'b': 1}",
        "4012\n8888\n88\n8818 and 1,000 200 30",
        "At 2026-11-22 16:24:05 order 1234567890123 was split into 3 parts of 12.50 each.",
        'click("r3") fill("r2", "Ada Lovelace") move({"source": "a.txt", "target": "b/c.txt"})',
        "version 10.0.19045.3803, 192.168.178.201, 0x7ffd5e8b, commit 9699f01a, 1700000000",
        "the key: value pairs, a token of thanks, password reset, the bearer of news",
        "trj_3f2a91bc77de0011 exp_0123456789abcdef page 12-345-6789 room 4111",
        "3.14159265358979 and 1234 5678 9012 3456 are numbers",
        "C:\\new\\table\\readme.md costs 100% of nothing",
    ],
)
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert REDACTOR.text(text) == text


def test_a_json_value_is_cleaned_by_name_and_by_content() -> None:
    told = {
        "api_key": "abc",
        "nested": [{"password": "x", "note": "write to ada@example.org"}, 4111111111111111, 7, True, None],
        "phone_number": "555 1234",
        "ada@example.org": 1,
        "key": "colour",
        "token": "blue",
    }

    assert REDACTOR.value(told) == {
        "api_key": SECRET,
        "nested": [{"password": SECRET, "note": f"write to {E_MAIL}"}, CARD, 7, True, None],
        "phone_number": PHONE,
        E_MAIL: 1,
        "key": "colour",
        "token": "blue",
    }


@given(st.text(max_size=300))
def test_any_text_can_be_redacted_and_redacting_again_changes_nothing(text: str) -> None:
    once = REDACTOR.text(text)

    assert REDACTOR.text(once) == once


REPEATED = [
    "\\", "\\\\u00", "sk-", "sk_sk-", "key-", "token:", "password:", "eyJaaaaaa-", "SG.aaaaaaaaaa-", "://a:", "bearer ",
    "basic a", "-----BEGIN PRIVATE KEY-----\n", "-----END ", "secret_", "authorization: ", "a@a.xn--", "a.a@",
    "+1 (1 (1 (1 (1 (1 (1 (1 (1 (1 (1 (1 (1x", "4 1", "4111\n", "tel number ", "%2", "a\0",
]  # fmt: skip


@pytest.mark.parametrize("unit", REPEATED)
def test_four_times_the_text_takes_about_four_times_as_long(unit: str) -> None:
    def seconds(size: int) -> float:
        text, taken = (unit * size)[:size], []
        for _ in range(5):
            start = time.thread_time()
            REDACTOR.text(text)
            taken.append(time.thread_time() - start)
        return sorted(taken)[2]

    assert seconds(8000) < 8 * seconds(2000) + 0.005, "the slack is what a clock cannot tell from nothing"


@pytest.mark.parametrize("pattern", [r"(\w+\s?)+$", r"CASE-.*END"])
def test_patterns_that_a_caller_could_keep_busy_are_refused(pattern: str) -> None:
    with pytest.raises(ConfigError, match="busy"):
        load_config(None, [f"serve.learning.redact={json.dumps([pattern])}"])


def test_patterns_with_bounds_are_taken() -> None:
    patterns = [OWN, r"\b[A-Z]{2}\d{6,10}\b", r"(?i)patient\s{0,3}(?:no|nr)\.?\s{0,3}\d{1,12}"]
    assert Config(serve={"learning": {"redact": patterns}}).serve.learning.redact == tuple(patterns)


@pytest.mark.parametrize("name", ["pwd", "session_key", "api key", "X-Client-Secret", "access_token", "authorization"])
@pytest.mark.parametrize("value", ["don't tell", "abc\ndef ghi", "correct horse", "abcdefgh"])
def test_a_name_that_says_so_makes_a_whole_text_a_secret_in_json_and_within_a_text(name: str, value: str) -> None:
    told = {name: value, "note": "fine"}
    clean = {name: SECRET, "note": "fine"}

    assert REDACTOR.value(told) == clean
    assert json.loads(REDACTOR.document(json.dumps(told))) == clean
    for written in (json.dumps, repr):
        quoted = written(value)
        expected = f"It said {written(told)}.".replace(quoted, f"{quoted[0]}{SECRET}{quoted[0]}")
        assert REDACTOR.text(f"It said {written(told)}.") == expected
