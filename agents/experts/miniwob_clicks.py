"""Experts for pages where the right thing has to be found and clicked: buttons, links, tabs, sections, trees."""

from tutelage.agents.experts.miniwob_rules import MINIWOB, submit
from tutelage.agents.experts.page import Advice, Element, NotOnPage, Page, click
from tutelage.agents.experts.registry import has

expert = MINIWOB.expert


@expert(r"Click the button\.", families="click-test")
def only_button(page: Page) -> Advice:
    return click(page.one("button"))


@expert(r"Click button ONE, (?:wait \d+ seconds, )?then click button TWO\.", families="click-button-sequence")
def two_buttons(page: Page) -> Advice:
    done = any(element.name == "ONE" for element in page.clicked)
    return click(page.one("button", "TWO" if done else "ONE"))


@expert(r"Click button (?P<name>\w+)\.", families="click-test-2 click-test-transfer")
@expert(r'Click on the "(?P<name>.*)" button\.', families="click-button unicode-test")
@expert(r'Click the button in the dialog box labeled "(?P<name>.*)"\.', families="click-dialog-2")
def named_button(page: Page, name: str) -> Advice:
    name = "Close" if name == "x" else name
    buttons = page.all("button", where=lambda button: button.name == name) or page.all("button", name)
    if not buttons:
        raise NotOnPage(name)
    return click(*buttons)


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
    return click(page.one("link", following.name), following)


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


MENU = {"Prev": "Playback", "Stop": "Playback", "Play": "Playback", "Next": "Playback"}
"""Which entry opens the submenu an item is in."""


@expert(
    r'Click the "Menu" button, and then find and click on the item labeled "(?P<name>.*)"\.',
    when=has("button"),
    families="",
)
def menu_item(page: Page, name: str) -> Advice:
    item = page.find("menuitem", name)
    if item:
        return click(item)
    if not page.all("menuitem"):
        return click(page.one("button", "Menu"))
    return click(page.one("menuitem", MENU[name]))


@expert(r'Click on a "(?P<kind>\w+)" widget\.', families="click-widget")
def widget(page: Page, kind: str) -> Advice:
    """A textarea shows its text inside, a text field does not."""
    if kind in ("radio", "checkbox", "button"):
        return click(*page.all(kind))
    boxes = [box for box in page.all("textbox") if bool(page.inside(box)) == (kind == "textarea")]
    if not boxes:
        raise NotOnPage(kind)
    return click(*boxes)


@expert(r"Click on the grid coordinate (?P<point>\(-?\d,-?\d\))\.", families="grid-coordinate")
def grid(page: Page, point: str) -> Advice:
    return click(page.one(where=lambda element: element.name.startswith(point) or element.name.endswith(point)))


@expert(r"Click on the numbers in ascending order\.", families="ascending-numbers")
def ascending(page: Page) -> Advice:
    done = {element.name for element in page.clicked}
    left = page.all(where=lambda element: element.name.isdigit() and element.name not in done)
    return click(min(left, key=lambda element: int(element.name)))


@expert(r"Find and pick the card with the greatest number, then press submit\.", families="find-greatest")
def greatest(page: Page) -> Advice:
    card = max(page.all("generic", where=lambda element: element.name.isdigit()), key=lambda card: int(card.name))
    picked = any(element.name == card.name for element in page.clicked[-1:])
    return submit(page) if picked else click(card)
