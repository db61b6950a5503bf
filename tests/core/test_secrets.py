"""What is taken out, and what must stay."""

import pytest

from tutelage.secrets import SECRET, cleaned, without_secrets


@pytest.mark.parametrize(
    "secret",
    [
        "sk-proj-abcDEF123456",
        "sk-abcd********wxyz",
        "gsk_0123456789abcdef",
        "hf_AbCdEfGh1234",
        "key-0123456789abcdef",
        "Bearer abcdefghijklmnop",
        "AIza" + "x1" * 15,
        "AKIA1234567890ABCDEF",
    ],
)
def test_keys_go(secret: str) -> None:
    assert without_secrets(f"refused: {secret} (401)") == f"refused: {SECRET} (401)"


@pytest.mark.parametrize(
    "plain",
    ["key_columns of task-manager-2", "the bearer of news", "risk-averse", "http://host:8080/x@y", "max_tokens"],
)
def test_ordinary_words_stay(plain: str) -> None:
    assert without_secrets(plain) == plain


def test_values_of_the_environment_go_the_longest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONE_TOKEN", "c0rrectly")
    monkeypatch.setenv("TWO_PASSWORD", "c0rrectly horse")
    monkeypatch.setenv("THREE_PASSWORD", "battery staple")
    monkeypatch.setenv("PLACE", "stable-number-7")
    told = "c0rrectly horse on stable-number-7, c0rrectly, battery staple"
    assert without_secrets(told) == f"{SECRET} on stable-number-7, {SECRET}, {SECRET}"


@pytest.mark.parametrize("word", ["none", "ollama", "EMPTY", "lm-studio", "not-needed", "local1"])
def test_what_local_servers_are_given_for_a_key_stays(monkeypatch: pytest.MonkeyPatch, word: str) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", word)
    assert without_secrets(f"there are {word} here") == f"there are {word} here"


def test_json_is_cleaned_throughout_and_its_shape_stays() -> None:
    tool = {"properties": {"token": {"type": "string"}, "key": {"enum": ["a", "sk-abcdef123456"]}}}
    value = {"api_key": "short", "user": "at http://me:pass@host/", "tools": [tool], "max_tokens": 5, "n": None}
    assert cleaned(value) == {
        "api_key": SECRET,
        "user": f"at http://{SECRET}@host/",
        "tools": [{"properties": {"token": {"type": "string"}, "key": {"enum": ["a", SECRET]}}}],
        "max_tokens": 5,
        "n": None,
    }
