"""Secrets of every kind that is listed in docs/serving.md, as Hypothesis makes them up."""

from collections.abc import Callable
from string import ascii_letters, ascii_lowercase, ascii_uppercase, digits

from hypothesis import strategies as st

BASE62, BASE64 = ascii_letters + digits, ascii_letters + digits + "_-"
HEX = digits + "abcdef"


def word(alphabet: str, least: int, most: int | None = None) -> st.SearchStrategy[str]:
    return st.text(alphabet, min_size=least, max_size=most or least)


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


CARDS = st.one_of(_card("4", 16), _card("51", 16), _card("37", 15), _card("6011", 16), _card("3530", 16))
MAILS = joined(
    word(ascii_lowercase, 1, 12), st.sampled_from([".", "+", "_", "-"]), word(BASE62, 1, 8), "@",
    word(ascii_lowercase, 2, 10), st.sampled_from([".com", ".co.uk", ".museum", ".de"]),
)  # fmt: skip
JWT = joined("eyJ", word(BASE64, 12, 40), ".eyJ", word(BASE64, 12, 40), ".", word(BASE64, 20, 43))
PRIVATE_KEY = word(BASE62 + "+/", 40, 64).map(
    lambda line: f"-----BEGIN OPENSSH PRIVATE KEY-----\n{line}\n{line[::-1]}==\n-----END OPENSSH PRIVATE KEY-----"
)
SECRETS: dict[str, st.SearchStrategy[str]] = {
    "OpenAI": joined("sk-proj-", word(BASE62, 20, 48)),
    "Anthropic": joined("sk-ant-api03-", word(BASE64, 30, 60), "A"),
    "GitHub": joined(st.sampled_from(["ghp_", "gho_", "ghs_", "github_pat_"]), word(BASE62, 36)),
    "GitLab": joined("glpat-", word(BASE62, 20)),
    "AWS": joined(st.sampled_from(["AKIA", "ASIA"]), word(ascii_uppercase + digits, 16)),
    "AWS secret": joined("aws_secret_access_key = 7", word(BASE62 + "/+", 39)),
    "Slack": joined(st.sampled_from(["xoxb-", "xoxp-"]), word(digits, 11), "-", word(BASE62, 24)),
    "Google": st.one_of(joined("AIza", word(BASE62, 35)), joined("ya29.", word(BASE64, 30), "x")),
    "Stripe": joined("sk_live_", word(BASE62, 24)),
    "Hugging Face": joined("hf_", word(BASE62, 34)),
    "bearer": joined("Bearer 1", word(HEX, 31)),
    "web token": JWT,
    "private key": PRIVATE_KEY,
    "password": joined("password: 7", word(BASE62, 9, 20)),
    "address": joined("postgres://app:7", word(BASE62, 8, 20), "@db.internal/app"),
    "e-mail": MAILS,
    "card": st.one_of(CARDS, CARDS.map(_grouped(" ")), CARDS.map(_grouped("-"))),
    "phone": st.one_of(
        joined("+49 ", word("123456789", 2), " ", word(digits, 7)),
        joined("+1", word("23456789", 10)),
        joined("(", word("23456789", 3), ") ", word("23456789", 3), "-", word(digits, 4)),
        joined("0", word("123456789", 3), "/", word(digits, 7)),
        joined("01 ", word(digits, 2), " ", word(digits, 2), " ", word(digits, 2), " ", word(digits, 2)),
    ),
    "own": joined("CASE-", word(digits, 6)),
}
"""Every kind by name; ``own`` is what the pattern `OWN` covers."""
OWN = r"CASE-\d{6}"


def payload(kind: str, secret: str) -> str:
    """The part of a planted text that gives it away."""
    for lead in ("aws_secret_access_key = ", "Bearer ", "password: ", "postgres://app:"):
        secret = secret.removeprefix(lead)
    return secret.partition("@db.internal")[0] if kind == "address" else secret
