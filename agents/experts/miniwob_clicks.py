"""Experts for pages where the right thing has to be found and clicked: buttons, links, tabs, sections, trees."""

from tutelage.agents.experts.miniwob_rules import MINIWOB, submit
from tutelage.agents.experts.page import Advice, Element, NotOnPage, Page, click, parse, press

expert = MINIWOB.expert


@expert(r"Click the button\.", families="click-test")
def only_button(page: Page) -> Advice:
    return click(page.one("button"))


@expert(r"Click button ONE, then click button TWO\.", families="click-button-sequence")
def two_buttons(page: Page) -> Advice:
    """The button that was pressed has the focus. One may lie under the other; a key reaches it there."""
    first, second = page.one("button", "ONE"), page.one("button", "TWO")
    wanted = second if first.focused else first
    tried = any(element.name == wanted.name for element in page.clicked)
    return press(wanted, "Enter") if tried else click(wanted)


@expert(r"Click button (?P<name>\w+)\.", families="click-test-2 click-test-transfer")
@expert(r'Click on the "(?P<name>.*)" button\.', families="click-button unicode-test")
@expert(r'Click the button in the dialog box labeled "(?P<name>.*)"\.', families="click-dialog-2")
def named_button(page: Page, name: str) -> Advice:
    name = "Close" if name == "x" else name
    buttons = page.all("button", where=lambda button: button.name == name) or page.all("button", name)
    if not buttons:
        raise NotOnPage(name)
    # One that was clicked and is still there lies under another; a key reaches it there.
    tried = buttons[0].name in (element.name for element in page.clicked)
    return press(buttons[0], "Enter") if tried else click(*buttons)


@expert(r'Close the dialog box by clicking the "x"\.', families="click-dialog")
def close_dialog(page: Page) -> Advice:
    return click(page.one("button", "Close"))


@expert(r"Focus into the textbox\.", families="focus-text")
def focus(page: Page) -> Advice:
    return click(page.one("textbox"))


@expert(r"Focus into the (?P<position>\d)\w\w input textbox\.", families="focus-text-2")
def focus_nth(page: Page, position: str) -> Advice:
    return click(page.all("textbox")[int(position) - 1])


def links(page: Page, name: str) -> list[Element]:
    """Words to click in running text."""
    return page.all("generic|link", where=lambda element: element.name == name)


@expert(r'Click on the link "(?P<name>.*)"\.', families="click-link")
def link(page: Page, name: str) -> Advice:
    found = links(page, name)
    if not found:
        raise NotOnPage(name)
    return click(*found)


@expert(r"Click on (?P<name>Tab #\d)\.", families="click-tab")
def tab(page: Page, name: str) -> Advice:
    return click(*reversed(page.all("tab|link", name)))


def after(found: list[Element], current: Element | None) -> Element:
    """The one after the current one, in a circle; the first if none is current."""
    return found[(found.index(current) + 1) % len(found)] if current else found[0]


@expert(
    r'Switch between the tabs to find and click on the link "(?P<name>.*)"\.',
    families="click-tab-2 click-tab-2-easy click-tab-2-medium click-tab-2-hard",
)
def link_in_tabs(page: Page, name: str) -> Advice:
    found = links(page, name)
    if found:
        return click(*found)
    tabs = page.all("tab")
    following = after(tabs, next((tab for tab in tabs if tab.selected), None))
    return click(following, *(inner for inner in page.inside(following) if inner.ref))


@expert(
    r'Expand the sections below, to find and click on the link "(?P<name>.*)"\.',
    families="click-collapsible-2 click-collapsible-2-nodelay",
)
def link_in_sections(page: Page, name: str) -> Advice:
    found = links(page, name)
    if found:
        return click(*found)
    sections = page.all("tab")
    if not sections:
        raise NotOnPage("sections")
    return click(after(sections, next((section for section in sections if section.expanded), None)))


@expert(r"Expand the section below and click submit\.", families="click-collapsible click-collapsible-nodelay")
def section(page: Page) -> Advice:
    first = page.one("tab")
    return submit(page) if first.expanded else click(first)


@expert(
    r'Navigate through the file tree\. Find and click on the folder or file named "(?P<name>.*)"\.',
    families="navigate-tree",
)
def tree(page: Page, name: str) -> Advice:
    """Folders are opened one after the other until the name shows; whether one is open shows in its icon."""
    found = page.all("generic", where=lambda element: element.name == name)
    found += page.all("listitem", where=lambda element: element.name == name)
    if found:
        return click(*found)
    closed = page.one("image", where=lambda image: "expandable" in image.name)
    folder = page.elements[page.elements.index(closed) + 1]
    return click(folder, closed)


@expert(r"Click on the numbers in ascending order\.", families="ascending-numbers")
def ascending(page: Page) -> Advice:
    """After the first click the numbers are hidden; what was clicked is gone, the others keep their order."""
    first = [int(e.name.split()[-1]) for e in parse(page.view.observations[0]) if " text " in e.name]
    shown = page.all("shape")
    left = [number for number in first if number > len(first) - len(shown)]
    if not left:
        raise NotOnPage("numbers")
    return click(shown[left.index(min(left))])


@expert(r"Find and pick the card with the greatest number, then press submit\.", families="find-greatest")
def greatest(page: Page) -> Advice:
    cards = page.all("generic", where=lambda element: element.name.isdigit())
    card = sorted(cards, key=lambda card: int(card.name))[-1]
    picked = any(element.name == card.name for element in page.clicked[-1:])
    return submit(page) if picked else click(card)


@expert(r"Click on the (?P<colour>\w+) colored box\.", families="click-color")
def colour_box(page: Page, colour: str) -> Advice:
    return click(page.one("generic", f"color {colour}"))


@expert(r"Select all the shades of (?P<colour>red|green|blue) and press Submit\.", families="click-shades")
def shades(page: Page, colour: str) -> Advice:
    """The strongest of red, green and blue names the shade; only the clicks tell which are chosen."""
    channel = ("red", "green", "blue").index(colour)
    wanted = []
    for box in page.all("generic", where=lambda element: "rgb(" in element.name):
        parts = [int(part) for part in box.name.partition("rgb(")[2].rstrip(")").split(",")]
        clicks = sum(clicked.ref == box.ref for clicked in page.clicked)
        if (parts[channel] == max(parts)) != clicks % 2:
            wanted.append(box)
    return click(*wanted) if wanted else submit(page)


SHAPES = {"rect": "Rectangle", "circle": "Circle", "polygon": "Triangle"}


@expert(r"Click the button that best describes the figure below\.", families="identify-shape")
def figure(page: Page) -> Advice:
    """The figure reads "red circle" or, a character, "red text 7"."""
    form, _, character = page.one("shape").name.partition(" ")[2].partition(" ")
    kind = SHAPES.get(form) or ("Number" if character.isdigit() else "Letter")
    return click(page.one("button", kind))
