"""One Chromium for all environments of a process, on an event-loop thread of its own.

Environments are synchronous and may run in many threads; each has a context of its own in the one
browser, and hands coroutines to the browser's thread with a hard time limit. A browser that died is
replaced when the next page is asked for.
"""

import asyncio
import atexit
import shutil
import threading
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from tutelage.errors import EnvironmentBroken, MissingPart

if TYPE_CHECKING:
    from playwright.async_api import Browser, BrowserContext, Playwright

T = TypeVar("T")

ARGUMENTS = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # Pages are local files: no name and no address resolves, whatever else a page may try.
    "--host-resolver-rules=MAP * ~NOTFOUND",
)
LAUNCH_TIMEOUT = 60.0
CLOSE_TIMEOUT = 5.0
_NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
"""The headless shell first: it starts no window processes and takes about half the time per step."""


class Chromium:
    """A browser process and the thread that talks to it."""

    def __init__(self, executable: str) -> None:
        self.executable = executable
        self.users = 0
        self._playwright: Playwright | None = None
        self._browser: Browser | None = None
        self._launching = asyncio.Lock()
        self._closing: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="chromium", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T], timeout: float) -> T:
        """Run `work` on the browser's thread.

        Raises:
            EnvironmentBroken: it took longer than `timeout` seconds, or the browser failed.
        """
        from playwright.async_api import Error

        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(timeout)
        except TimeoutError as error:
            future.cancel()
            raise EnvironmentBroken(f"the page did not answer within {timeout:g} s") from error
        except Error as error:
            raise EnvironmentBroken(f"the browser failed: {error.message.splitlines()[0][:200]}") from error

    async def context(self, **options: Any) -> "BrowserContext":
        """A new context; launches the browser if there is none or it died."""
        async with self._launching:
            if self._browser is None or not self._browser.is_connected():
                await self._stop()
                await self._launch()
            browser = self._browser
        assert browser is not None
        return await browser.new_context(**options)

    def discard(self, context: "BrowserContext") -> None:
        """Close a context without waiting for it; where even that hangs, the browser goes too."""
        self._loop.call_soon_threadsafe(self._discard_soon, context)

    def shut_down(self) -> None:
        """Close the browser and end the thread."""
        try:
            self.run(self._finish(), LAUNCH_TIMEOUT)
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(CLOSE_TIMEOUT)

    def _discard_soon(self, context: "BrowserContext") -> None:
        task = self._loop.create_task(self._discard(context))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _discard(self, context: "BrowserContext") -> None:
        from playwright.async_api import Error

        browser = context.browser
        try:
            await asyncio.wait_for(context.close(), CLOSE_TIMEOUT)
        except (TimeoutError, Error):
            async with self._launching:
                if browser is not None and browser is self._browser:
                    await self._stop()

    async def _launch(self) -> None:
        from playwright.async_api import async_playwright

        self._playwright = await async_playwright().start()
        self._browser = await self._playwright.chromium.launch(
            executable_path=self.executable, args=list(ARGUMENTS), timeout=LAUNCH_TIMEOUT * 1000
        )

    async def _stop(self) -> None:
        from playwright.async_api import Error

        browser, self._browser = self._browser, None
        playwright, self._playwright = self._playwright, None
        for part in (browser.close() if browser else None, playwright.stop() if playwright else None):
            if part is not None:
                try:
                    await asyncio.wait_for(part, CLOSE_TIMEOUT)
                except (TimeoutError, Error):
                    continue  # it is dead already, which is what was wanted

    async def _finish(self) -> None:
        await asyncio.gather(*self._closing)
        async with self._launching:
            await self._stop()


_shared: dict[str, Chromium] = {}
_lock = threading.Lock()


def acquire(executable: str | None = None) -> Chromium:
    """The process's browser for this executable, started on first use; give it back with `release`.

    Raises:
        MissingPart: Playwright or Chromium is not installed.
    """
    path = find_chromium(executable)
    with _lock:
        chromium = _shared.get(path)
        if chromium is None:
            chromium = _shared[path] = Chromium(path)
        chromium.users += 1
        return chromium


def release(chromium: Chromium) -> None:
    """The last user shuts the browser down."""
    with _lock:
        chromium.users -= 1
        if chromium.users or _shared.get(chromium.executable) is not chromium:
            return
        del _shared[chromium.executable]
    chromium.shut_down()


def find_chromium(executable: str | None = None) -> str:
    """Path of the Chromium to use.

    Raises:
        MissingPart: with the command that installs what is missing.
    """
    try:
        import playwright.async_api  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingPart("Playwright is not installed; run: pip install 'tutelage[web]'") from error
    for name in (executable,) if executable else _NAMES:
        if path := shutil.which(name):
            return path
    what = f"{executable} is not an executable" if executable else "Chromium is not installed"
    raise MissingPart(f"{what}; run: sudo apt-get install -y chromium")


@atexit.register
def _shut_down_all() -> None:
    while _shared:
        _, chromium = _shared.popitem()
        chromium.shut_down()
