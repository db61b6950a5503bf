"""The expert for the toy environment."""

from tutelage.agents.experts.page import Advice, Page, click, fill_all
from tutelage.agents.experts.registry import Experts

TOY = Experts()
advise = TOY.advise


@TOY.expert(r"press (?P<name>\w+)", families="press")
def press_button(page: Page, name: str) -> Advice:
    return click(page.one("button", name))


@TOY.expert(r"name (?P<name>\w+) place (?P<place>\w+) then submit", families="form")
def form(page: Page, name: str, place: str) -> Advice:
    boxes = (page.one("textbox", "name"), name), (page.one("textbox", "place"), place)
    return fill_all(boxes) or click(page.one("button", "submit"))


@TOY.expert(r"write (?P<word>\w+) then submit", families="copy")
def copy(page: Page, word: str) -> Advice:
    return fill_all([(page.one("textbox"), word)]) or click(page.one("button", "submit"))


@TOY.expert(r"tick (?P<names>.+) then submit", families="tick")
def tick(page: Page, names: str) -> Advice:
    wanted = names.split(" and ")
    wrong = page.all("checkbox", where=lambda box: box.checked != (box.name in wanted))
    return click(*wrong) if wrong else click(page.one("button", "submit"))


COVERED = tuple(sorted(TOY.families))
"""Families it claims to solve."""
