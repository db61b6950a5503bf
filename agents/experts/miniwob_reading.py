"""Experts for pages whose text has to be read, copied or computed with."""

import re

from tutelage.agents.experts.miniwob_rules import MINIWOB, submit
from tutelage.agents.experts.page import Advice, Element, NotOnPage, Page, click, fill_all, parse

expert = MINIWOB.expert

COUNTED = 6
"""Up to this word a thought counts along; beyond it would be longer than the thoughts of a small model should be."""


def answer(page: Page, text: str, thought: str = "") -> Advice:
    """Fill the last text field, then submit."""
    boxes = page.all("textbox|spinbutton")
    if not boxes:
        raise NotOnPage("text field")
    return fill_all([(boxes[-1], text)], thought=thought) or submit(page)


@expert(
    r'Find the (?P<position>\d+)\w\w word in the paragraph, type that into the textbox and press "Submit"\.',
    families="find-word",
)
def find_word(page: Page, position: str) -> Advice:
    words = " ".join(page.texts()).split()
    word = words[int(position) - 1].strip(".,")
    counted = " ".join(f"{number} {word}" for number, word in enumerate(words[: int(position)], 1))
    return answer(page, word, counted if int(position) <= COUNTED else "")


@expert(
    r"Solve the math problem and type your answer into the textbox\. Press submit when done\.",
    families="simple-arithmetic",
)
def arithmetic(page: Page) -> Advice:
    match = re.search(r"(\d+) *([-+x]) *(\d+)", " ".join(page.texts()))
    if match is None:
        raise NotOnPage("problem")
    left, right = int(match[1]), int(match[3])
    result = {"+": left + right, "-": left - right, "x": left * right}[match[2]]
    return answer(page, str(result), f"{match[0]} = {result}")


@expert(r"Solve for x and type your answer into the textbox\. Press Submit when done\.", families="simple-algebra")
def algebra(page: Page) -> Advice:
    match = re.search(r"(\d+|x) *([-+]) *(\d+|x) *= *(-?\d+)", " ".join(page.texts()))
    if match is None:
        raise NotOnPage("equation")
    first, sign, second, total = match[1], match[2], match[3], int(match[4])
    if first == "x":
        known, result = second, total - int(second) if sign == "+" else total + int(second)
        work = f"{total} {'-' if sign == '+' else '+'} {known}"
    else:
        result = total - int(first) if sign == "+" else int(first) - total
        work = f"{total} - {first}" if sign == "+" else f"{first} - {total}"
    return answer(page, str(result), f"x = {work} = {result}")


@expert(r"Mark the numbers below as odd or even and press submit when done\.", families="odd-or-even")
def odd_or_even(page: Page) -> Advice:
    """The page does not show which button of a row is chosen; the last click in each row tells."""
    rows = [element for element in page.elements if element.role == "text" and re.fullmatch(r"-?\d+", element.name)]
    chosen: dict[int, str] = {}
    for clicked in page.clicked:
        chosen[row_of(clicked, rows)] = clicked.name
    for number, row in enumerate(rows):
        right = "Odd" if int(row.name) % 2 else "Even"
        if chosen.get(number) != right:
            buttons = [b for b in page.all("button", right) if row_of(b, rows) == number]
            return click(buttons[0], thought=f"{row.name} is {right.lower()}")
    return submit(page)


def row_of(button: Element, rows: list[Element]) -> int:
    """Index of the number beside a button: "Odd" stands before its number, "Even" after it."""
    return sum(row.index < button.index for row in rows) - (button.name == "Even")


@expert(r"Copy the text in the textarea below, paste it into the textbox and press Submit\.", families="copy-paste")
def copy(page: Page) -> Advice:
    """The textarea is the field that had text at first."""
    first = [element for element in parse(page.view.observations[0]) if element.role == "textbox"]
    source = next((number for number, element in enumerate(first) if element.value), 0)
    boxes = page.all("textbox")
    return fill_all([(boxes[1 - source], boxes[source].value or "")]) or submit(page)


@expert(
    r"Copy the text from the (?P<position>\d)\w\w text area below and paste it into the text input, "
    r"then press Submit\.",
    families="copy-paste-2",
)
def copy_nth(page: Page, position: str) -> Advice:
    return answer(page, page.all("textbox")[int(position) - 1].value or "")


def table(page: Page) -> dict[str, str]:
    """A two-column table."""
    cells = [element.name for element in page.elements if element.role == "cell"]
    return dict(zip(cells[::2], cells[1::2], strict=False))


@expert(r"Enter the value of (?P<label>.*) into the text field and press Submit\.", families="read-table")
def read_table(page: Page, label: str) -> Advice:
    return answer(page, table(page)[label])


@expert(
    r"Enter the value that corresponds with each label into the form and submit when done\.", families="read-table-2"
)
def read_table_form(page: Page) -> Advice:
    values = table(page)
    return fill_all((box, values[box.name.rstrip(":")]) for box in page.all("textbox")) or submit(page)


@expert(r"Type the text below into the text field and press Submit\.", families="text-transform")
def text_transform(page: Page) -> Advice:
    return answer(page, "".join(page.texts()))


@expert(r"Guess the number between 0-9 and press Submit\. .*", families="guess-number")
def guess(page: Page) -> Advice:
    """Halve the range that the answers so far leave."""
    low, high = 0, 9
    for observation in page.view.observations:
        match = re.search(r'number is (lower|higher) than"?\s+(?:text ")?(\d)', observation)
        if match and match[1] == "lower":
            high = min(high, int(match[2]) - 1)
        elif match:
            low = max(low, int(match[2]) + 1)
    return answer(page, str((low + high) // 2), f"It is between {low} and {high}.")


@expert(
    r"Generate (?:a|an) (?P<kind>\w+)? ?number(?: (?P<side>less|greater) than (?P<bound>\d+))?, then press submit\.",
    families="generate-number",
)
def generate(page: Page, kind: str | None, side: str | None, bound: str | None) -> Advice:
    shown = next((int(text) for text in page.texts() if text.isdigit()), None)
    if shown is None:
        good = False
    elif bound is None:
        good = shown % 2 == (kind == "odd")
    else:
        good = shown < int(bound) if side == "less" else shown > int(bound)
    return submit(page) if good else click(page.one("button", "Generate"))
