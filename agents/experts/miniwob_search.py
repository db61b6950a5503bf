"""Experts for looking things up: search, suggestions, paging, posts, orders."""

import re

from tutelage.agents.experts.miniwob_rules import MINIWOB, submit
from tutelage.agents.experts.page import Advice, Element, NotOnPage, Page, click, fill, fill_all, press

expert = MINIWOB.expert
RESULTS_PER_PAGE = 3


@expert(
    r'Use the textbox to enter "(?P<query>.*)" and press "Search", then find and click the (?P<rank>\d)\w\w '
    r"search result\.",
    families="search-engine",
)
def search_engine(page: Page, query: str, rank: str) -> Advice:
    box, search = page.one("textbox"), page.one("button", "Search")
    if box.value != query:
        return fill(box, query)
    results = page.all("link", where=lambda link: not re.fullmatch(r"\d|<|>", link.name))
    if not results:
        return click(search)
    wanted, position = divmod(int(rank) - 1, RESULTS_PER_PAGE)
    # Which page is open does not show: it is the last one asked for since the search.
    turns = [element.name for element in page.clicked if element.name == "Search" or element.name.isdigit()]
    shown = int(turns[-1]) if turns and turns[-1].isdigit() else 1
    if shown != wanted + 1:
        return click(page.one("link", str(wanted + 1)), thought=f"Result {rank} is on page {wanted + 1}.")
    return click(results[position], thought=f"Result {rank} is number {position + 1} on page {shown}.")


@expert(
    r'Enter an item that starts with "(?P<start>.*?)"(?: and ends with "(?P<end>.*)")?\.',
    families="use-autocomplete use-autocomplete-nodelay",
)
def autocomplete(page: Page, start: str, end: str | None) -> Advice:
    box = page.one("textbox")
    value = box.value or ""
    items = page.all("listitem|menuitem", where=lambda e: e.name.startswith(start) and e.name.endswith(end or ""))
    if value == start and items and not any(item.name == value for item in items):
        return click(*items)
    if value.startswith(start) and value.endswith(end or ""):
        # The list lies over the button while it is open; a key reaches it there.
        return press(page.one("button", "Submit"), "Enter") if items else submit(page)
    return fill(box, start)


FIELDS = {"Genre": "genre", "Director": "director", "Year": "year", "Date": "year"}
"""Words in the labels of a movie search and what belongs there."""


@expert(
    r"Search for (?P<genre>.*) movies directed by (?P<director>.*) from year (?P<year>\d+)\.",
    families="multi-layouts multi-orderings",
)
def movies(page: Page, **wanted: str) -> Advice:
    """A field without a name has its label before it or, in one layout, after it."""
    parts = [e for e in page.elements if e.role == "textbox" or (e.role in ("text", "cell") and field_of(e))]
    fields = [part for part in parts if part.role == "textbox"]
    if not fields:
        raise NotOnPage("form")
    step = -1 if parts[0].role != "textbox" else 1
    labels = {field: field if field_of(field) else parts[parts.index(field) + step] for field in fields}
    texts = [(field, wanted[field_of(label)]) for field, label in labels.items()]
    return fill_all(texts) or click(page.one("button|generic", where=lambda e: e.name in ("Submit", "Search", "Go!")))


def field_of(label: Element) -> str:
    return next((field for word, field in FIELDS.items() if word in label.name), "")


@expert(
    r"Find (?P<name>.*) in the contact book and click on their (?P<what>phone number|email|address)\.",
    families="phone-book",
)
def phone_book(page: Page, name: str, what: str) -> Advice:
    texts = page.texts()
    label = {"phone number": "Phone:", "email": "Email:", "address": "Address:"}[what]
    if name in texts and label in texts:
        heading = next(e for e in page.elements if e.role == "text" and e.name == label)
        return click(page.elements[page.elements.index(heading) + 1])
    return click(page.one("link", where=lambda link: link.name == ">"))


def posts(page: Page) -> list[tuple[str, list[Element]]]:
    """User and buttons of each post, in page order."""
    found: list[tuple[str, list[Element]]] = []
    for element in page.elements:
        if element.role == "text" and element.name.startswith("@"):
            found.append((element.name, []))
        elif found and element.ref:
            found[-1][1].append(element)
    return found


@expert(r'For the user (?P<user>@.*), click on the "(?P<what>.*)" button\.', families="social-media")
def post_button(page: Page, user: str, what: str) -> Advice:
    """Reply, retweet and like are icons; everything else is behind "more"."""
    mine = [button for name, buttons in posts(page) if name == user for button in buttons]
    items = [button for button in mine if button.name == what or button.name == f"{what} {user}"]
    icons = [button for button in mine if button.name == what.lower()]
    more = [button for button in mine if button.name == "more"]
    for found in (items, icons, more):
        if found:
            return click(*found)
    raise NotOnPage(user)


@expert(
    r'Click the "(?P<what>.*)" button on (?P<count>all|\d+) posts? by (?P<user>@.*) and then click Submit\.',
    families="social-media-all social-media-some",
)
def post_buttons(page: Page, what: str, count: str, user: str) -> Advice:
    mine = [b for name, buttons in posts(page) if name == user for b in buttons if b.name.startswith(what.lower())]
    pressed = [button for button in mine if button.name.endswith("active")]
    left = [button for button in mine if button not in pressed]
    missing = len(left) if count == "all" else int(count) - len(pressed)
    if missing < 0:
        return click(*pressed)
    return click(*left) if missing else submit(page)


@expert(r"Buy the ticket with the (?P<what>.*)\.", families="buy-ticket")
def ticket(page: Page, what: str) -> Advice:
    """Durations stand before their buttons, prices on them."""
    minutes = [int(m[1]) * 60 + int(m[2]) for t in page.texts() if (m := re.fullmatch(r"(\d+)h (\d+)m", t))]
    buttons = page.all("button", where=lambda button: "$" in button.name)
    key = minutes if "duration" in what else [int(button.name.split("$")[1]) for button in buttons]
    choose = min if what.split()[0] in ("cheapest", "shortest") else max
    if not buttons:
        raise NotOnPage("tickets")
    return click(buttons[choose(range(len(buttons)), key=key.__getitem__)])


KINDS = {
    "dairy": "Spinach and goat cheese dip, Cheese wheel, Chocolate cake, Ice cream sundae",
    "gluten-free": "Caesar Salad, Spinach and goat cheese dip, Tofu and Vegetable stone pot, Grilled Pork Tenderloin, "
    "Cheese wheel, Ice cream sundae",
    "meat": "Chicken wings, Spicy Thai Peanut Chicken, Grilled Pork Tenderloin, Spaghetti and Meatballs",
    "peanuts": "Spicy Thai Peanut Chicken, Ice cream sundae",
    "vegan": "Caesar Salad, Garlic bread, Tofu and Vegetable stone pot, Coconut mango tart",
}
"""Which dishes are what; the page shows it as pictures only."""


@expert(r"Order one of each item: (?P<items>.*)", families="order-food")
def order_items(page: Page, items: str) -> Advice:
    wanted = {item.strip() for item in items.split(",")}
    return order(page, {dish: int(dish in wanted) for dish, *_ in dishes(page)})


@expert(r"Order (?P<count>\d+) items that are (?P<kind>.*)", families="order-food")
def order_kind(page: Page, count: str, kind: str) -> Advice:
    """All of the first dish that fits."""
    fitting = [dish for dish, *_ in dishes(page) if dish in KINDS[kind].split(", ")]
    return order(page, {dish: int(count) if dish == fitting[0] else 0 for dish, *_ in dishes(page)})


def order(page: Page, wanted: dict[str, int]) -> Advice:
    for dish, minus, plus, count in dishes(page):
        if count != wanted[dish]:
            return click(plus if count < wanted[dish] else minus)
    return click(page.one("button", "Order!"))


def dishes(page: Page) -> list[tuple[str, Element, Element, int]]:
    """Dish, minus, plus, count; the count stands between the two and is missing while it is nought."""
    found = []
    for index, element in enumerate(page.elements):
        if element.ref and element.name == "-":
            following = page.elements[index + 1 : index + 3]
            plus = following[0] if following[0].name == "+" else following[1]
            count = following[0].name if following[0].role == "text" else "0"
            found.append((page.elements[index - 1].name, element, plus, int(count)))
    return found
