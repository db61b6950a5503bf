"""Experts for forms: text fields, choices and sliders that are set and submitted."""

from tutelage.agents.experts.miniwob_rules import MINIWOB, submit
from tutelage.agents.experts.page import Advice, Element, Page, click, fill_all, select
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
