"""Experts for the mail client: delete, star, reply, forward, asked for in many wordings."""

import re
from dataclasses import dataclass

from tutelage.agents.experts.miniwob_rules import MINIWOB
from tutelage.agents.experts.page import Advice, NotOnPage, Page, click, fill, parse

expert = MINIWOB.expert

DELETE = re.compile(r"delete|trash|rid of|recycling|remove|throw|don't want|out of my inbox", re.IGNORECASE)
STAR = re.compile(r"important|star\b|flag|mark", re.IGNORECASE)
FORWARD = re.compile(r"forward|foward|\bsend\b|\bgive\b", re.IGNORECASE)


@dataclass(frozen=True)
class Errand:
    """What is to be done with whose mail."""

    what: str
    sender: str
    text: str = ""
    """Answer of a reply, addressee of a forward."""


def is_mail(page: Page) -> bool:
    return page.view.observations[0].startswith('text "Primary"')


@expert(
    r"(?P<goal>.*)",
    when=is_mail,
    families="email-inbox email-inbox-delete email-inbox-important email-inbox-noscroll email-inbox-reply "
    "email-inbox-star-reply email-inbox-forward email-inbox-forward-nl email-inbox-nl-turk",
)
def mail(page: Page, goal: str) -> Advice:
    rows = [row.name for row in parse(page.view.observations[0]) if row.ref and row.depth == 0]
    errand = understand(goal, rows)
    if page.find("generic", "search-cancel"):
        return click(page.one("generic", "search-cancel"))
    if page.find("generic", "send-reply") or page.find("generic", "send-forward"):
        return write(page, errand)
    if page.find("generic", "close-email"):
        return handle(page, errand)
    row = page.one("generic", where=lambda row: row.depth == 0 and starts_with(row.name, errand.sender))
    if errand.what not in ("trash", "star"):
        return click(row)
    icons = [icon for icon in page.inside(row) if icon.name.startswith(errand.what)]
    if not icons:
        raise NotOnPage(errand.what)
    return click(*icons)


def handle(page: Page, errand: Errand) -> Advice:
    """An opened mail; its sender stands before "to me"."""
    texts = page.texts()
    sender = texts[texts.index("to me") - 1] if "to me" in texts else ""
    if sender != errand.sender:
        return click(page.one("generic", "close-email"))
    return click(page.one("generic", errand.what))


def write(page: Page, errand: Errand) -> Advice:
    """The form of a reply or a forward."""
    if page.find("generic", f"send-{errand.what}") is None:
        return click(page.one("generic", where=lambda element: element.name in ("close-reply", "close-forward")))
    box = page.one("textbox")
    if box.value != errand.text:
        return fill(box, errand.text)
    return click(page.one("generic", f"send-{errand.what}"))


def starts_with(text: str, name: str) -> bool:
    return text == name or text.startswith(f"{name} ")


def understand(goal: str, rows: list[str]) -> Errand:
    """The errand behind a wording; a mail is named by its sender, who is found in the list."""
    quoted = re.search(r'"(.*)"', goal)
    words = goal[: quoted.start()] + goal[quoted.end() :] if quoted else goal
    named = [match for match in re.finditer(r"[A-Z][\w-]*(?: Zsa)?", words) if sender_in(match[0], rows)]
    if not named:
        raise NotOnPage("no sender of the list is named")
    senders = {match.start(): sender_in(match[0], rows) for match in named}
    if quoted:
        return Errand("reply", senders[named[0].start()], quoted[1])
    if DELETE.search(words):
        return Errand("trash", senders[named[0].start()])
    if STAR.search(words) and not FORWARD.search(words):
        return Errand("star", senders[named[0].start()])
    first = min(named, key=lambda match: (cue(words, match), match.start()))
    others = [senders[match.start()] for match in named if match is not first]
    # Where the addressee has sent no mail himself, the wording is the plain one.
    plain = re.search(r"forward that email to (.*)\.", goal)
    addressee = others[0] if others else plain[1] if plain else senders[first.start()]
    return Errand("forward", senders[first.start()], addressee)


def sender_in(word: str, rows: list[str]) -> str:
    """The sender that a word of the goal stands for, also as "Ann's" or "Anns"; "" if none."""
    for name in (word, word.removesuffix("s")):
        if any(starts_with(row, name) for row in rows):
            return name
    return ""


def cue(goal: str, match: re.Match[str]) -> int:
    """How little the words around a name make it the sender's."""
    before, after = goal[: match.start()], goal[match.end() :]
    if re.search(r"\b(?:from|by) $", before):
        return 0
    if re.match(r"'s (?:inbox|email\.$)", after) and before.endswith("to "):
        return 3
    if re.match(r"'s|s? (?:sent|wrote|last)\b", after):
        return 1
    return 2 if not re.search(r"\b(?:to|give|send|forward|email) $", before, re.IGNORECASE) else 3
