"""Secrets of every kind that is listed in docs/serving.md, as Hypothesis makes them up."""

from base64 import b64encode
from collections.abc import Callable
from string import ascii_letters, ascii_lowercase, ascii_uppercase, digits

from hypothesis import strategies as st

BASE62, BASE64 = ascii_letters + digits, ascii_letters + digits + "_-"
HEX = digits + "abcdef"


def word(alphabet: str, least: int, most: int | None = None) -> st.SearchStrategy[str]:
    # Not `st.text`, which likes to take words out of the source code: they are in a workspace anyway.
    return st.lists(st.sampled_from(alphabet), min_size=least, max_size=most or least).map("".join)


def joined(*parts: str | st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.tuples(*(st.just(part) if isinstance(part, str) else part for part in parts)).map("".join)


def _card(start: str, length: int) -> st.SearchStrategy[str]:
    """With the last digit that Luhn's check wants."""

    def completed(body: str) -> str:
        doubled = [int(digit) * (2 - place % 2) for place, digit in enumerate(reversed(body))]
        return body + str(-sum(number // 10 + number % 10 for number in doubled) % 10)

    return word(digits, length - len(start) - 1).map(lambda rest: completed(start + rest))


def _grouped(separator: str) -> Callable[[str], str]:
    return lambda number: separator.join(number[place : place + 4] for place in range(0, len(number), 4))


def _login(pair: str) -> str:
    return b64encode(pair.encode()).decode()


CARDS = st.one_of(_card("4", 16), _card("51", 16), _card("37", 15), _card("6011", 16), _card("3530", 16))
SIXTEEN = st.one_of(_card("4", 16), _card("51", 16), _card("6011", 16))


def _apart(number: str) -> st.SearchStrategy[str]:
    return st.sampled_from(["  ", "\n", " - ", "_"]).map(lambda separator: _grouped(separator)(number))


MAILS = joined(
    word(ascii_lowercase, 1, 12), st.sampled_from([".", "+", "_", "-"]), word(BASE62, 1, 8), "@",
    word(ascii_lowercase, 2, 10), st.sampled_from([".com", ".co.uk", ".museum", ".de", ".xn--p1ai"]),
)  # fmt: skip
ANNOUNCED = ("call me at ", "phone: ", "my mobile number is ", "Fax ", "WhatsApp: ")
JWT = joined("eyJ", word(BASE64, 12, 24), ".eyJ", word(BASE64, 12, 24), ".", word(BASE64, 20, 30))
PRIVATE_KEY = word(BASE62 + "+/", 40, 48).map(
    lambda line: f"-----BEGIN OPENSSH PRIVATE KEY-----\n{line}\n{line[::-1]}==\n-----END OPENSSH PRIVATE KEY-----"
)
SECRETS: dict[str, st.SearchStrategy[str]] = {
    "OpenAI": joined("sk-proj-", word(BASE62, 20, 48)),
    "Anthropic": joined("sk-ant-api03-", word(BASE64, 30, 40), "A"),
    "GitHub": joined(st.sampled_from(["ghp_", "gho_", "ghs_", "github_pat_"]), word(BASE62, 36)),
    "GitLab": joined("glpat-", word(BASE62, 20)),
    "AWS": joined(st.sampled_from(["AKIA", "ASIA"]), word(ascii_uppercase + digits, 16)),
    "AWS secret": joined("aws_secret_access_key = 7", word(BASE62 + "/+", 39)),
    "Slack": joined(st.sampled_from(["xoxb-", "xoxp-"]), word(digits, 11), "-", word(BASE62, 24)),
    "Google": st.one_of(joined("AIza", word(BASE62, 35)), joined("ya29.", word(BASE64, 30), "x")),
    "Stripe": joined("sk_live_", word(BASE62, 24)),
    "Hugging Face": joined("hf_", word(BASE62, 34)),
    "npm": joined("npm_", word(BASE62, 36)),
    "PyPI": joined("pypi-AgEIcHlwaS5vcmc", word(BASE64, 20, 40)),
    "SendGrid": joined("SG.", word(BASE64, 12, 22), ".", word(BASE64, 12, 24)),
    "Twilio": joined("SK", word(HEX, 32)),
    "Telegram": joined(st.sampled_from(["", "bot"]), word("123456789", 10), ":AA", word(BASE64, 33)),
    "DigitalOcean": joined("dop_v1_", word(HEX, 20, 40)),
    "Shopify": joined(st.sampled_from(["shpat_", "shpss_"]), word(HEX, 32)),
    "Azure": joined("AccountKey=", word(BASE62 + "+/", 40, 48), "=="),
    "Vault": joined("hvs.", word(BASE64, 20, 30)),
    "Tutelage": joined("tut_", word(BASE64, 20, 30)),
    "Slack hook": joined("https://hooks.slack.com/services/T", word(BASE62, 8), "/B", word(BASE62, 16)),
    "basic": joined("Basic ", joined(word(ascii_lowercase, 3, 9), ":", word(BASE62, 5, 12)).map(_login)),
    "JSON by name": joined('{"client_name": "Ada", "password": "', word(ascii_lowercase, 9, 14), '"}'),
    "bearer": joined("Bearer 1", word(HEX, 31)),
    "web token": JWT,
    "private key": PRIVATE_KEY,
    "password": st.one_of(
        joined("password: 7", word(BASE62, 9, 20)),
        joined("password: ", word(ascii_letters, 3, 6), st.sampled_from(",();{]"), word(digits, 3, 6)),
    ),
    "address": joined(st.sampled_from(["postgres://app:7", "redis://:7"]), word(BASE62, 8, 20), "@db.internal/app"),
    "e-mail": MAILS,
    "card": st.one_of(CARDS, CARDS.map(_grouped(" ")), CARDS.map(_grouped("-")), SIXTEEN.flatmap(_apart)),
    "phone": st.one_of(
        joined("+49 ", word("123456789", 2), " ", word(digits, 7)),
        joined("+1", word("23456789", 10)),
        joined("(", word("23456789", 3), ") ", word("23456789", 3), "-", word(digits, 4)),
        joined("0", word("123456789", 3), "/", word(digits, 7)),
        joined(st.sampled_from(ANNOUNCED), word(digits, 7, 11)),
        joined("01 ", word(digits, 2), " ", word(digits, 2), " ", word(digits, 2), " ", word(digits, 2)),
    ),
    "own": joined("CASE-", word(digits, 6)),
}
"""Every kind by name; ``own`` is what the pattern `OWN` covers. Some are shorter than real ones: three times all
of them have to fit into what a small model reads."""
OWN = r"CASE-\d{6}"


LEADS = (
    "aws_secret_access_key = ", "Bearer ", "Basic ", "password: ", "postgres://app:", "redis://:", "AccountKey=",
    '{"client_name": "Ada", "password": "', "https://hooks.slack.com/services/T", *ANNOUNCED,
)  # fmt: skip
"""What may stay of a planted text."""


PIECE = 8
"""Characters in a row that must not be left of what gives a planted text away."""


def payload(kind: str, secret: str) -> str:
    """The part of a planted text that gives it away."""
    for lead in LEADS:
        secret = secret.removeprefix(lead)
    return secret.partition("@db.internal")[0].removesuffix('"}') if kind in ("address", "JSON by name") else secret


def pieces(kind: str, secret: str) -> set[str]:
    """Every `PIECE` characters in a row of each line of the payload, and all of a shorter line."""
    lines = [line for line in payload(kind, secret).splitlines() if not line.startswith("-----")]
    return {line[place : place + PIECE] for line in lines for place in range(max(1, len(line) - PIECE + 1))}
