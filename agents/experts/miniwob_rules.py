"""The table of MiniWoB experts and what they share; the modules that fill it are imported by `miniwob`."""

from tutelage.agents.experts.page import Advice, Page, click
from tutelage.agents.experts.registry import Experts

MINIWOB = Experts()


def submit(page: Page) -> Advice:
    return click(page.one("button|generic", "Submit"))
