"""Taking out of conversations what must not be kept: keys and tokens, e-mail addresses, card and phone numbers, and
whatever patterns the user adds.

What is looked at is the text as a reader would take it: escapes of JSON and addresses are undone, wide digits are
digits, invisible characters are not there. What is replaced is the original. It goes by patterns, so what looks like
none of them (a password in a sentence, a name, a postal address) stays; docs/serving.md says what is covered.
"""

import json
import re
import unicodedata
from base64 import b64decode
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

from tutelage.calls import too_deep
from tutelage.secrets import SECRET, Span, replaced, secret_spans, without_secrets

E_MAIL, CARD, PHONE, OWN_PATTERN = "[e-mail]", "[card]", "[phone]", "[redacted]"
"""What stands in the place of each."""

MOST_LOOKS = 4
"""A placeholder may show what was hidden behind what it replaced; nearly always the second look finds nothing."""

_UNIT = re.compile(r"\\+(?:u[0-9A-Fa-f]{4}|[nrtbf\"'/])?|%[2-7][0-9A-Fa-f]|.", re.DOTALL)
"""A character, an escape of one, or backslashes that are none, all in a row so that they are read once."""
_PLAIN = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f", '"': '"', "'": "'", "/": "/"}
_INVISIBLE, _SPACE = frozenset({"Cf", "Mn", "Cc"}), "\t\n\v\f\r\x85"
"""Unicode categories of what a reader does not see within a word, and those of them that are white space."""
_NOT_PLAIN = re.compile(r"[\x00-\x08\x0e-\x1f\x7f\\%]")
"""What makes plain ASCII read otherwise than it is written."""

# -- keys and tokens ------------------------------------------------------------------------------

_PRIVATE_KEY = re.compile(
    r"-----BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----"
    r"(?:(?:(?!-----BEGIN ).){0,20000}?-----END (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----|[A-Za-z0-9+/=\s:,-]*)",
    re.DOTALL,
)
_TOKEN = re.compile(
    r"""(?x)(?<![A-Za-z0-9])(?:
      gh[pousr]_[A-Za-z0-9]{16,} | github_pat_\w{20,} | gl(?:pat|dt|rt|ft|soat)-[\w-]{16,}
    | (?:AKIA|ASIA|AGPA|AIDA|AROA|AIPA|ANPA|ANVA|ABIA|ACCA)[A-Z0-9]{12,}
    | xox[abceoprs]-[\w-]{8,} | xapp-\d-[\w-]{8,} | (?:https://)?hooks\.slack\.com/(?:services|workflows)/[\w/-]+
    | AIza[\w-]{20,} | ya29\.[\w-]{10,} | 1//0[\w-]{20,} | GOCSPX-[\w-]{16,}
    | (?:sk|pk|rk)_(?:live|test)_[A-Za-z0-9]{10,} | whsec_[\w+/=-]{16,}
    | sk-(?:ant|proj|or|svcacct|admin)-[\w-]{10,}
    | hf_[A-Za-z0-9]{16,} | npm_[A-Za-z0-9]{20,} | pypi-[\w-]{30,}
    | dop_v1_[0-9a-f]{20,} | shp(?:at|ca|pa|ss)_[0-9a-f]{20,}
    | SG\.[\w-]{10,}\.[\w-]{10,} | SK[0-9a-f]{32} | (?:bot)?\d{8,10}:AA[\w-]{30,} | tut_[\w-]{20,} | hv[sbr]\.[\w-]{20,}
    | AccountKey=[A-Za-z0-9+/]{40,}={0,2}
    )"""
)
_WEB_TOKEN = re.compile(r"(?<![A-Za-z0-9])eyJ[\w-]{6,}(\.[\w-]{6,}(?:\.[\w-]*){0,3})?")
"""A JSON web token, signed or encrypted, if it has a second part. What has none is matched too, whole, so as not to be
read anew from every `eyJ` in it; the same goes for what follows, where more is asked of a match in `_secrets`."""
_HEADER = re.compile(r"(?i)(?<![^\W_])(bearer|basic)\s{1,4}([\w.~+/=-]{8,})")
_AUTHORIZED = re.compile(
    r"""(?ix)(?<![^\W_]) authorization ["'\s]{0,3} [:=] \s{0,3} ["']?
    ((?:basic|bearer|token|digest|negotiate|api-?key) \s{1,4} [^\s"']{4,})"""
)
_PASSWORD = r"password|passwd|passphrase|pwd"
_KEY = (
    r"api[_\s-]?key|(?:client[_-]?)?secret(?:[_-]?(?:access[_-]?)?key)?|(?:access|private|session)[_-]?key"
    r"|(?:auth|access|refresh|bearer|api)[_-]?token|authorization"
)
"""What the name of a secret ends with, wherever names are looked at. A mere `key` is no such name, for many tools call
other things so; a mere `token` only where what it is given looks like one."""
_ASSIGNED = re.compile(
    rf"""(?ix)
    (?<![a-z0-9]) (?:\w{{0,24}}[_-])?
    (?:{_KEY}|token|({_PASSWORD}))
    ["'\s]{{0,3}} (?:=>?|:) \s{{0,3}} ["']?
    (?![\[{{]) ([^\s"']+)
    """
)
"""What a name that says so is given, up to white space or a quote, for all else may be part of a password."""
_SIGN, _SIGN_OF_TOKEN, _AFTER = re.compile(r"[\d!@#$%^&*+/=_~-]"), re.compile(r"[\d=_.-]"), ",;.:!?)]}{["
SHORTEST_PASSWORD, SHORTEST_VALUE = 4, 6
"""Characters from which on what follows `password:`, and what follows the other names, is taken for a secret."""
_PLACE = re.compile(r"\[(?:secret|e-mail|card|phone|redacted)\]")
_QUOTED = re.compile(
    rf"""(?ix)["'] (?:\w{{0,24}}[_-])? (?:{_KEY}|{_PASSWORD})
    ["'] \s{{0,8}} : \s{{0,8}} (?: "([^"]++)" | '([^']++)' )"""
)
"""JSON within a text, where a whole text under such a name is a secret."""
_SECRET_NAME = re.compile(rf"(?i)(?:{_KEY}|{_PASSWORD})$")

# -- people ---------------------------------------------------------------------------------------

_MAIL = re.compile(
    r"(?<![\w.+%'-])[\w.+%'-]++@(?:[\w-]{1,63}\.){1,8}(?:(?i:xn--[a-z0-9-]{1,59})|[^\W\d_]{2,24})(?![^\W_])"
)
_DIGITS = re.compile(r"(?<!\d)\d(?:[\s._/\u2010-\u2015-]{0,3}\d){11,}")
_NARROW = re.compile(r"[ .\u2010-\u2015\xa0-]?")
"""What may be between the digits of a card in any grouping; anything wider only as cards have it printed on them."""
_PRINTED = frozenset({(4, 4, 4, 4), (4, 6, 5), (4, 6, 4), (4, 4, 4, 4, 3), (4, 4, 4, 1)})
_GROUP = re.compile(r"\d+")
_BRANDS: tuple[tuple[str, frozenset[int]], ...] = (
    (r"4", frozenset({13, 16, 19})),  # Visa
    (r"5[1-5]|222[1-9]|22[3-9]|2[3-6]|27[01]|2720", frozenset({16})),  # Mastercard
    (r"220[0-4]", frozenset({16, 17, 18, 19})),  # Mir
    (r"3[47]", frozenset({15})),  # American Express
    (r"30[0-59]|3[689]", frozenset({14, 16, 19})),  # Diners Club
    (r"6011|64[4-9]|65|62|81", frozenset({16, 17, 18, 19})),  # Discover, UnionPay
    (r"352[89]|35[3-8]", frozenset({16, 17, 18, 19})),  # JCB
    (r"50|5[6-9]|6[0137]", frozenset({16, 18, 19})),  # Maestro; its shorter ones are too like any number
)
_CARDS = tuple((re.compile(start), lengths) for start, lengths in _BRANDS)
SHORTEST_CARD, LONGEST_CARD = 13, 19
_GAP = r"[ \xa0.\u2010-\u2015/()-]"
_PHONE = re.compile(
    rf"""(?x)(?<![^\W_])(?<!\d[.-])(?<!\+)(?!(?<=\d,)0\d\d[ ]) (?:  # `1,000 200 30` is none
      (?:\(?\+\d{{1,3}} {_GAP}{{0,3}}|00[1-9]\d{{0,2}} {_GAP}{{1,3}})  # +49 30 123456, 0049 (0)30 123456
      \d (?:{_GAP}{{0,3}}\d){{5,13}}
    | (?:1[ .-])? (?:\([2-9]\d{{2}}\)[ .-]?|[2-9]\d{{2}}[.-]|[2-9]\d{{2}}[ ](?=\d{{3}}-))  # (555) 123-4567
      \d{{3}}[ .-] \d{{4}}
    | \(0\d{{1,5}}\) [ -]? \d{{3,8}} (?:[ -]\d{{2,5}}){{0,3}}  # (030) 123456
    | 0\d{{2,4}} [ /-]{{1,3}} \d{{3,8}} (?:[ -]\d{{2,5}}){{1,3}}  # 030 123 45 67
    | 0\d{{2,4}} [ ]?/[ ]? \d{{5,9}} | 0[1-9]\d{{2,4}}[ -]\d{{6,8}}  # 0171/1234567
    | 0[1-9] (?:[ .]\d{{2}}){{4}}  # 01 23 45 67 89
    ) (?![^\W_]|[.-]\d)"""
)
_CALLED = re.compile(
    r"(?i)((?<![^\W_])(?:tel(?:ephone|efon|\.)?|phone|mobile|cell|mobil|handy|fax|whatsapp|(?:call|ring|text) (?:me|us)"
    r"|sms)\b"
    r"(?: ?(?:number|no\.?|nr\.?|at|on|is|me|under))*[ :#=]{0,3}[\"']?)"
    r"(\+?\(?\d(?:[ ()./-]{0,2}\d){6,14})(?!\d)"
)
_REACHED = re.compile(r"(?i)^(?:phone|telephone|mobile|cell|fax|tel|msisdn|whatsapp)(?:[_-]?(?:number|no|nr))?$")


class Redactor:
    """Takes out what is listed above, always the same way: what is redacted once stays as it is."""

    def __init__(self, patterns: Sequence[str] = ()) -> None:
        """
        Args:
            patterns: regular expressions of one's own, looked for in the text as it is and as a reader takes it.
        """
        self._own = [re.compile(pattern) for pattern in patterns]

    def text(self, text: str) -> str:
        """`text` with placeholders in the place of what must not be kept."""
        text = without_secrets(text)
        text = replaced(text, self._own_spans(text))
        read = _as_read(text)
        finders: tuple[Callable[[str], Iterator[Span]], ...] = (self._own_spans, _secrets, _mails, _cards, _phones)
        for _ in range(MOST_LOOKS):
            before = text
            for find in finders:
                if spans := list(read.back(find(read.text))):
                    text = replaced(text, spans)
                    read = _as_read(text)
            if text == before:
                break
            finders = (_secrets, _mails, _cards, _phones)
        return text

    def document(self, text: str) -> str:
        """As `text`; of JSON also what is a secret by its name."""
        if text.lstrip().startswith(("{", "[")):
            try:
                value = json.loads(text)
            except (ValueError, RecursionError):
                return self.text(text)
            if not too_deep(value) and (clean := self.value(value)) != value:
                text = json.dumps(clean, ensure_ascii=False)
        return self.text(text)

    def value(self, value: Any, name: str = "") -> Any:
        """A JSON value: every text in it, names included, and whole texts and numbers under a name that says it."""
        if isinstance(value, str):
            if value and _SECRET_NAME.search(name):
                return SECRET
            if _REACHED.match(name) and sum(map(str.isdigit, value)) >= 6:
                return PHONE
            return self.text(self._beside(name, value, '"'))
        if isinstance(value, dict):
            return {self.text(str(key)): self.value(item, str(key)) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(item, name) for item in value]
        if isinstance(value, int | float) and not isinstance(value, bool):
            number = str(value)
            said = self.value(self._beside(name, number, ""), name)
            return value if said == number else said
        return value

    def _beside(self, name: str, said: str, quote: str) -> str:
        """`said` without what only the name before it shows: what is found in the pair must come in place of a whole
        value here, since in the text of the JSON it could take a comma or a bracket along."""
        if not name or _PLACE.fullmatch(said):
            return said
        lead = f'"{name}": {quote}'
        read = _as_read(f"{lead}{said}{quote}")
        found = [*self._own_spans(read.text), *_assigned(read.text), *_called(read.text)]
        at, end = len(lead), len(lead) + len(said)
        mine = [(max(start, at) - at, min(last, end) - at, put) for start, last, put in read.back(found) if last > at]
        return replaced(said, mine)

    def _own_spans(self, text: str) -> Iterator[Span]:
        for pattern in self._own:
            for match in pattern.finditer(text):
                yield (*match.span(), OWN_PATTERN)


class _Read(NamedTuple):
    """A text as a reader takes it; for each of its characters, from where to where it stands in the original."""

    text: str
    starts: Sequence[int]
    ends: Sequence[int]

    def back(self, spans: Iterable[Span]) -> Iterator[Span]:
        """Where these stand in the original."""
        for start, end, put in spans:
            if end > start:
                yield self.starts[start], self.ends[end - 1], put


def _as_read(text: str) -> _Read:
    if text.isascii() and not _NOT_PLAIN.search(text):
        return _Read(text, range(len(text)), range(1, len(text) + 1))
    said: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    for match in _UNIT.finditer(text):
        unit = match[0]
        if unit[-1] == "\\":
            said += unit
            starts += range(match.start(), match.end())
            ends += range(match.start() + 1, match.end() + 1)
            continue
        if len(unit) > 1:
            unit = _unescaped(unit)
        for char in unit if unit.isascii() else unicodedata.normalize("NFKC", unit):
            if char in _SPACE or unicodedata.category(char) not in _INVISIBLE:
                said.append(char)
                starts.append(match.start())
                ends.append(match.end())
    return _Read("".join(said), starts, ends)


def _unescaped(escape: str) -> str:
    code = escape.lstrip("\\%")
    return _PLAIN[code] if code in _PLAIN else chr(int(code.lstrip("u"), 16))


def _secrets(text: str) -> Iterator[Span]:
    for pattern in (_PRIVATE_KEY, _TOKEN):
        for match in pattern.finditer(text):
            yield (*match.span(), SECRET)
    for match in _WEB_TOKEN.finditer(text):
        if match[1]:
            yield (*match.span(), SECRET)
    for match in _HEADER.finditer(text):
        if _SIGN_OF_TOKEN.search(match[2]) or _is_login(match[2]):
            yield (*match.span(), SECRET)
    for match in _AUTHORIZED.finditer(text):
        if not _PLACE.search(match[1]):
            yield (*match.span(1), SECRET)
    for match in _QUOTED.finditer(text):
        group = 1 if match[1] else 2
        if not _PLACE.fullmatch(match[group]):
            yield (*match.span(group), SECRET)
    for start, end in secret_spans(text):
        yield start, end, SECRET
    yield from _assigned(text)


def _assigned(text: str) -> Iterator[Span]:
    for match in _ASSIGNED.finditer(text):
        value = _PLACE.sub("", match[2]).rstrip(_AFTER)
        if len(value) >= (SHORTEST_PASSWORD if match[1] else SHORTEST_VALUE) and _SIGN.search(value):
            yield (*match.span(2), SECRET)


def _is_login(token: str) -> bool:
    """Whether it is what `Basic` is followed by: NAME:PASSWORD in base64."""
    try:
        return b":" in b64decode(token, validate=True) and b64decode(token).decode().isprintable()
    except ValueError:
        return False


def _mails(text: str) -> Iterator[Span]:
    if "@" in text:
        for match in _MAIL.finditer(text):
            yield (*match.span(), E_MAIL)


def _cards(text: str) -> Iterator[Span]:
    """Numbers of a known brand and its length that pass the check of their last digit, in any grouping."""
    for run in _DIGITS.finditer(text):
        groups = [(run.start() + group.start(), run.start() + group.end()) for group in _GROUP.finditer(run[0])]
        digits = "".join(text[start:end] for start, end in groups)
        wide = _wide(text, groups)
        sums = _checks(digits)
        begins = list(accumulate((end - start for start, end in groups), initial=0))
        for first, begin in enumerate(begins[:-1]):
            for last in range(first, len(groups)):
                end = begins[last + 1]
                if end - begin > LONGEST_CARD:
                    break
                sum_of_it = sums[end % 2][end] - sums[end % 2][begin]
                if end - begin < SHORTEST_CARD or sum_of_it % 10 or not _branded(digits[begin:end]):
                    continue
                if wide[first] == wide[last] or tuple(to - at for at, to in groups[first : last + 1]) in _PRINTED:
                    yield groups[first][0], groups[last][1], CARD


def _wide(text: str, groups: Sequence[tuple[int, int]]) -> list[int]:
    """Of every group, how many gaps before it are wide."""
    gaps = (text[before[1] : after[0]] for before, after in pairwise(groups))
    return list(accumulate((not _NARROW.fullmatch(gap) for gap in gaps), initial=0))


def _checks(digits: str) -> tuple[list[int], list[int]]:
    """Running sums of Luhn's check over the digits, for numbers that end at an even place, and at an odd one."""
    numbers = [int(digit) for digit in digits]
    doubled = [2 * number - 9 * (number > 4) for number in numbers]
    even, odd = (
        [doubled[place] if place % 2 == parity else numbers[place] for place in range(len(numbers))]
        for parity in (0, 1)
    )
    return list(accumulate(even, initial=0)), list(accumulate(odd, initial=0))


def _branded(digits: str) -> bool:
    known = any(len(digits) in lengths and start.match(digits) for start, lengths in _CARDS)
    return known and len(set(digits)) > 1


def _phones(text: str) -> Iterator[Span]:
    yield from _called(text)
    for match in _PHONE.finditer(text):
        if 7 <= sum(map(str.isdigit, match[0])) <= 16:
            yield (*match.span(), PHONE)


def _called(text: str) -> Iterator[Span]:
    for match in _CALLED.finditer(text):
        yield (*match.span(2), PHONE)
