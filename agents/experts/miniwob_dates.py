"""Experts for calendars and for booking a flight."""

import re
from datetime import datetime

from tutelage.agents.experts.miniwob_rules import MINIWOB, submit
from tutelage.agents.experts.page import Advice, Page, click, fill

expert = MINIWOB.expert


def pick_date(page: Page, box_index: int, date: str) -> Advice | None:
    """Set a date field (MM/DD/YYYY) by its calendar; None when it is set."""
    box = page.all("textbox")[box_index]
    if box.value == date:
        return None
    heading = re.search(r"\b([A-Z][a-z]+) (\d{4})\b", " ".join(page.texts()[-4:]))
    if heading is None or not page.find("link", "Prev"):
        return click(box)
    wanted = datetime.strptime(date, "%m/%d/%Y")
    shown = datetime.strptime(heading[0], "%B %Y")
    distance = (wanted.year - shown.year) * 12 + wanted.month - shown.month
    if distance:
        way = "Next" if distance > 0 else "Prev"
        return click(page.one("link", way), thought=f"{heading[1]} is shown, {wanted:%B} is wanted.")
    return click(page.one("link", str(wanted.day)))


@expert(
    r"Select (?P<date>\d\d/\d\d/\d{4}) as the date and hit submit\.",
    families="choose-date choose-date-easy choose-date-medium choose-date-nodelay",
)
def choose_date(page: Page, date: str) -> Advice:
    return pick_date(page, 0, date) or submit(page)


@expert(
    r"Book the (?P<what>cheapest|shortest) one-way flight from: (?P<start>.*) to: (?P<end>.*) on (?P<date>[\d/]+)\.",
    families="book-flight book-flight-nodelay",
)
def book_flight(page: Page, what: str, start: str, end: str, date: str) -> Advice:
    flights = page.all("button", where=lambda button: "$" in button.name)
    if flights:
        return best_flight(page, what)
    for box, place in zip(page.all("textbox"), (start, end), strict=False):
        if box.value == place or place not in (box.value or ""):
            items = [item for item in page.all("listitem|menuitem") if place in item.name]
            return click(*items) if items and box.value == place else fill(box, place)
    return pick_date(page, 2, date) or click(page.one("button", "Search"))


def best_flight(page: Page, what: str) -> Advice:
    """Prices stand on the buttons, durations ("5h 10m") before them."""
    buttons = page.all("button", where=lambda button: "$" in button.name)
    prices = [int(button.name.split("$")[1]) for button in buttons]
    times = [re.fullmatch(r"(?:(\d+)h)? ?(?:(\d+)m)?", text) for text in page.texts() if text]
    minutes = [int(match[1] or 0) * 60 + int(match[2] or 0) for match in times if match]
    key = prices if what == "cheapest" else minutes
    return click(buttons[min(range(len(buttons)), key=key.__getitem__)])
