"""MiniWoB++ as an environment: real pages, real clicks and keys, text in and out.

The page is seeded with the task's seed itself (``Math.seedrandom(seed)``), so distinct seeds are
distinct episodes as far as the page varies at all. BrowserGym seeds its pages with
``numpy.random.RandomState(seed).randint(0, 1000000)``; a task whose seed is that number is the same
episode as BrowserGym's.

Departures from the upstream benchmark, all as in BrowserGym: no time limit, and a reward of 1 if the
page's raw reward is above 0, else 0.
"""

import re
from importlib.resources import files
from typing import TYPE_CHECKING, Any, ClassVar

from tutelage.calls import Call
from tutelage.environments import page as text
from tutelage.environments.base import ActionRefused, Environment, Outcome
from tutelage.environments.miniwob import browser
from tutelage.environments.miniwob.actions import perform
from tutelage.environments.miniwob.catalogue import page_url, pages_root, split_of_families
from tutelage.errors import EnvironmentBroken, UnknownName
from tutelage.types import Task

if TYPE_CHECKING:
    from playwright.async_api import BrowserContext, Page

LOAD_TIMEOUT = 30.0
VIEWPORT = {"width": 500, "height": 320}
AWAY = (499, 319)
SETTLE = 400
"""Longest wait, in ms, for animations and delayed reactions after an action."""


class MiniWoB(Environment):
    """One MiniWoB++ page at a time, in a browser context of its own.

    Args:
        reload: load the page anew for every episode, as evaluation wants it. Without it a page is
            reused as long as the family stays the same and the page keeps nothing between episodes.
        executable: Chromium to use; by default the one on the PATH.
        step_timeout: seconds after which a page counts as hung.

    Raises:
        MissingPart: Playwright, Chromium or the pages are not installed.
    """

    name: ClassVar[str] = "miniwob"
    trust: ClassVar[float] = 1.0
    system: str = (
        "You operate a web page; [r1] marks an element. End your reply with one action: "
        'click("r1"), fill("r1", "text"), select("r1", "option"), press("r1", "Enter") or noop().'
    )

    def __init__(self, reload: bool = False, executable: str | None = None, step_timeout: float = 30.0) -> None:
        self._root = pages_root()
        self._reload = reload
        self._step_timeout = step_timeout
        self._chromium: browser.Chromium | None = browser.acquire(executable)
        self._context: BrowserContext | None = None
        self._page: Page | None = None
        self._url = ""
        self._stale = True

    @classmethod
    def families(cls) -> tuple[str, ...]:
        return tuple(sorted(split_of_families()))

    @classmethod
    def meaning(cls, action: str, observation: str) -> str:
        return text.meaning(action, observation)

    def start(self, task: Task) -> tuple[str, str]:
        if task.family not in split_of_families():
            raise UnknownName(f"unknown miniwob family {task.family!r}; `tutelage env show miniwob` lists them")
        url = page_url(task.family)
        return self._run(self._begin(url, task.seed), LOAD_TIMEOUT + self._step_timeout)

    def act(self, call: Call) -> Outcome:
        element = text.check(call, self.observation)
        return self._run(self._act(call, element), self._step_timeout)

    def close(self) -> None:
        """Close the page; the last environment to close shuts the browser down."""
        chromium, self._chromium = self._chromium, None
        if chromium is not None:
            self._drop(chromium)
            browser.release(chromium)

    # -- on the caller's thread -----------------------------------------------------------------

    def _run(self, work: Any, timeout: float) -> Any:
        if self._chromium is None:
            work.close()
            raise EnvironmentBroken("this environment is closed")
        try:
            return self._chromium.run(work, timeout)
        except EnvironmentBroken:
            self._drop(self._chromium)
            raise

    def _drop(self, chromium: browser.Chromium) -> None:
        """Forget the page; the next episode begins on a new one."""
        context, self._context, self._page, self._url = self._context, None, None, ""
        if context is not None:
            chromium.discard(context)

    # -- on the browser's thread ----------------------------------------------------------------

    async def _begin(self, url: str, seed: int) -> tuple[str, str]:
        page = self._page or await self._open()
        if self._reload or self._stale or url != self._url or _without_fragment(page.url) != url:
            await page.goto(url, timeout=LOAD_TIMEOUT * 1000)
        else:
            await page.mouse.move(*AWAY)  # or what the last episode pointed at begins highlighted
        self._url = url
        begun = await page.evaluate("([seed, cap]) => tutelage.begin(seed, cap)", [seed, SETTLE])
        self._stale = begun["stale"]
        return begun["goal"], begun["observation"]

    async def _open(self) -> "Page":
        assert self._chromium is not None
        self._context = await self._chromium.context(viewport=VIEWPORT, offline=True)
        outside = re.compile(rf"^(?!{re.escape(self._root.as_uri())}/)")
        await self._context.route(outside, lambda route: route.abort())
        script = files("tutelage.environments.miniwob").joinpath("observe.js").read_text()
        await self._context.add_init_script(script)
        self._page = await self._context.new_page()
        return self._page

    async def _act(self, call: Call, element: text.Element | None) -> Outcome:
        page = self._page
        if page is None:
            raise EnvironmentBroken("there is no page; reset the environment first")
        try:
            await perform(page, call)
            refusal = None
        except ActionRefused as error:
            refusal = error
        if _without_fragment(page.url) != self._url:
            self._stale = True
            return Outcome('text "The page is gone."', 0.0, terminated=True)
        state = await page.evaluate("cap => tutelage.read(cap)", SETTLE)
        if refusal and not state["done"] and state["observation"] == self.observation:
            raise refusal
        return Outcome(state["observation"], float(state["done"] and state["reward"] > 0), state["done"])


def _without_fragment(url: str) -> str:
    """A link to ``#`` changes the URL but does not leave the page."""
    return url.partition("#")[0]
