"""Experts for forms: text fields, choices and sliders that are set and submitted."""

import re
from functools import cache
from importlib.resources import files

from tutelage.agents.experts.miniwob_rules import MINIWOB, submit
from tutelage.agents.experts.page import Advice, Element, Page, click, fill_all, press, select
from tutelage.agents.experts.registry import has

expert = MINIWOB.expert


def fields(page: Page) -> list[Element]:
    return page.all("textbox")


@expert(r'Enter "(?P<text>.*)" into the text field and press Submit\.', families="enter-text enter-text-dynamic")
def enter_text(page: Page, text: str) -> Advice:
    return fill_all([(page.one("textbox"), text)]) or submit(page)


@expert(
    r'Type "(?P<text>.*)" in all (?P<case>upper|lower) case letters in the text input and press Submit\.',
    families="enter-text-2",
)
def enter_cased(page: Page, text: str, case: str) -> Advice:
    return fill_all([(page.one("textbox"), text.upper() if case == "upper" else text.lower())]) or submit(page)


@expert(r'Enter the password "(?P<text>.*)" into both text fields and press submit\.', families="enter-password")
def enter_password(page: Page, text: str) -> Advice:
    return fill_all((field, text) for field in fields(page)) or submit(page)


@expert(
    r'Enter the username "(?P<user>.*)" and the password "(?P<password>.*)" into the text fields and press login\.',
    families="login-user login-user-popup",
)
def login(page: Page, user: str, password: str) -> Advice:
    popup = page.find("button", "Cancel")
    if popup:
        return click(popup)
    return fill_all(zip(fields(page), (user, password), strict=False)) or click(page.one("button"))


@expert(r"Enter (?P<month>\d\d)/(?P<day>\d\d)/(?P<year>\d{4}) as the date and hit submit\.", families="enter-date")
def enter_date(page: Page, month: str, day: str, year: str) -> Advice:
    return fill_all([(page.one("date"), f"{year}-{month}-{day}")]) or submit(page)


@expert(r"Enter (?P<hour>\d+):(?P<minute>\d\d)\s(?P<half>[AP])M as the time and press submit\.", families="enter-time")
def enter_time(page: Page, hour: str, minute: str, half: str) -> Advice:
    hours = int(hour) % 12 + (12 if half == "P" else 0)
    return fill_all([(page.one("time|textbox"), f"{hours:02d}:{minute}")]) or submit(page)


@cache
def thesaurus() -> tuple[frozenset[str], ...]:
    """Groups of words of like meaning, one a line in ``thesaurus.txt``."""
    text = files("tutelage.agents.experts").joinpath("thesaurus.txt").read_text()
    return tuple(frozenset(line.split()) for line in text.splitlines())


@expert(r"Select words similar to (?P<words>.*) and click Submit\.", families="click-checkboxes-soft")
def similar(page: Page, words: str) -> Advice:
    named = set(words.split(", "))
    return tick(page, named.union(*(group for group in thesaurus() if group & named)))


@expert(
    r"Select (?P<names>.*) and click Submit\.",
    when=has("checkbox"),
    families="click-checkboxes click-checkboxes-large click-checkboxes-transfer",
)
def checkboxes(page: Page, names: str) -> Advice:
    wanted = set() if names == "nothing" else set(names.split(", "))
    return tick(page, wanted)


def tick(page: Page, wanted: set[str]) -> Advice:
    """Make exactly the `wanted` checkboxes checked, then submit."""
    wrong = page.all("checkbox", where=lambda box: box.checked != (box.name in wanted))
    return click(*wrong) if wrong else submit(page)


@expert(r"Select (?P<name>.*) and click Submit\.", when=has("radio"), families="click-option")
def option(page: Page, name: str) -> Advice:
    radio = page.one("radio", where=lambda radio: radio.name == name)
    return submit(page) if radio.checked else click(radio)


@expert(r"Select (?P<name>.*) from the list and click Submit\.", families="choose-list")
def choose_list(page: Page, name: str) -> Advice:
    box = page.one("combobox")
    return submit(page) if box.value == name else select(box, name)


@expert(r"Select (?P<names>.*) from the scroll list and click Submit\.", families="click-scroll-list")
def scroll_list(page: Page, names: str) -> Advice:
    """`select` adds one option; a click on an option changes it."""
    wanted = names.split(", ")
    options = page.all("option")
    for extra in options:
        if extra.selected and extra.name not in wanted:
            return click(extra)
    missing = [option for option in options if option.name in wanted and not option.selected]
    return click(*missing) if missing else submit(page)


@expert(r"Select (?P<number>-?\d+) with the spinner and hit Submit\.", families="use-spinner")
def spinner(page: Page, number: str) -> Advice:
    return fill_all([(page.one("spinbutton"), number)]) or submit(page)


@expert(
    r"Select (?P<number>-?\d+) with the slider, click the (?P<position>\d)\w\w checkbox, then hit Submit\.",
    families="form-sequence",
)
def slider_and_checkbox(page: Page, number: str, position: str) -> Advice:
    """The slider's value stands below it; Page Up and Page Down are worth a fifth of its range."""
    shown = [int(text) for text in page.texts() if re.fullmatch(r"-?\d+", text)]
    distance = int(number) - shown[0]
    if distance:
        way = "Up" if distance > 0 else "Down"
        return press(page.one("slider"), f"Page{way}" if abs(distance) > 2 else f"Arrow{way}")
    boxes = page.all("checkbox")
    wrong = [box for index, box in enumerate(boxes, 1) if box.checked != (index == int(position))]
    return click(*wrong) if wrong else submit(page)


@expert(
    r'Choose (?P<option>.*) from the dropdown, then click the button labeled "(?P<button>.*)"\.',
    families="form-sequence-3",
)
def dropdown_and_button(page: Page, option: str, button: str) -> Advice:
    """The dropdown is drawn by the page: closed, its arrow stands after what is chosen."""
    arrow = page.one("generic", where=lambda element: element.name.endswith("▾") and not page.inside(element))
    if arrow.name == f"{option} ▾":
        return click(page.one("button", button))
    return click(page.find("listitem", option) or arrow)


COLOURS = {
    "black": "000000", "white": "FFFFFF", "aqua": "00FFFF", "blue": "0000FF", "gray": "808080", "green": "008000",
    "lime": "00FF00", "maroon": "800000", "navy": "000080", "olive": "808000", "purple": "800080", "red": "FF0000",
    "silver": "C0C0C0", "teal": "008080", "yellow": "FFFF00", "pink": "FFC0CB", "magenta": "FF00FF", "gold": "FFD700",
    "orange": "FFA500",
}  # fmt: skip


@expert(r"Select (?P<colour>\w+) with the color picker and hit Submit\.", families="use-colorwheel")
def colour_picker(page: Page, colour: str) -> Advice:
    return fill_all([(page.one("textbox"), COLOURS[colour])]) or submit(page)


@expert(r"Scroll the textarea to the (?P<end>top|bottom) of the text hit submit\.", families="scroll-text-2")
def scroll(page: Page, end: str) -> Advice:
    """How far it is scrolled does not show; the last key pressed tells."""
    key = press(page.one("textbox"), "Control+End" if end == "bottom" else "Control+Home")
    return submit(page) if page.view.actions and page.view.actions[-1] == key.actions[0] else key


@expert(
    r'Check the (?P<radio>\d)\w\w radio button and enter the number "(?P<number>-?\d+)" into the '
    r"(?P<box>\d)\w\w textbox\.",
    families="form-sequence-2",
)
def radio_and_number(page: Page, radio: str, number: str, box: str) -> Advice:
    button = page.all("radio")[int(radio) - 1]
    if not button.checked:
        return click(button)
    texts = ((field, number if index == int(box) else "") for index, field in enumerate(fields(page), 1))
    return fill_all(texts) or submit(page)
