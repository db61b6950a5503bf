"""The MiniWoB++ pages in a real Chromium: all of them load, their traps hold, and nothing takes the run down."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tutelage.environments.miniwob import MiniWoB, catalogue, official_split
from tutelage.environments.page import elements
from tutelage.errors import EnvironmentBroken, MissingPart, UnknownName
from tutelage.types import Cause, Split

SAMPLE = (
    "book-flight", "choose-date", "click-collapsible", "click-menu", "click-pie", "daily-calendar",
    "email-inbox-nl-turk", "navigate-tree", "social-media", "stock-market", "text-editor", "use-autocomplete",
)  # fmt: skip
RESTLESS = {"click-pie", "stock-market", "terminal"}
"""Pages that go on by themselves: a wheel that folds up, a price that moves, a cursor that blinks. Of these only
the goals are sure to repeat."""


@pytest.fixture(scope="module")
def web() -> Iterator[MiniWoB]:
    environment = MiniWoB()
    yield environment
    environment.close()


def begin(web: MiniWoB, family: str, seed: int = 0) -> tuple[str, str]:
    observation, info = web.reset(seed=seed, options={"family": family})
    return info["goal"], observation


def ref(web: MiniWoB, role: str, name: str = "") -> str:
    return next(e.ref for e in elements(web.observation) if e.role == role and name in e.name and e.ref)


def in_page(web: MiniWoB, script: str) -> object:
    assert web._chromium is not None
    assert web._page is not None
    return web._chromium.run(web._page.evaluate(script), 20)


def test_families_and_split() -> None:
    train, test = official_split(Split.TRAIN), official_split(Split.TEST)
    assert (len(train), len(test), len(MiniWoB.families())) == (62, 63, 125)
    assert not set(train) & set(test)
    pages = {path.stem for path in (catalogue.pages_root() / "miniwob").glob("*.html")}
    assert set(MiniWoB.families()) <= pages


def test_pages_load_and_step(web: MiniWoB, full_counts: bool) -> None:
    """Every page shows a goal and something to act on, takes a step, and begins the same way again."""
    for family in MiniWoB.families() if full_counts else SAMPLE:
        for seed in range(3) if full_counts else (1,):
            goal, observation = begin(web, family, seed)
            assert goal, family
            target = next((e.ref for e in elements(observation) if e.ref), None)
            assert target or family == "drag-items-grid", family
            *_, info = web.step(f'click("{target}")' if target else "noop()")
            assert info["diagnosis"].cause in Cause
            again = begin(web, family, seed)
            assert again[0] == goal, family
            assert again[1] == observation or family in RESTLESS, family


def test_reload_begins_like_reuse(web: MiniWoB) -> None:
    fresh = MiniWoB(reload=True)
    try:
        for family in ("click-tab-2", "email-inbox", "use-spinner"):
            for seed in range(3):
                assert begin(fresh, family, seed) == begin(web, family, seed)
    finally:
        fresh.close()


def test_link_to_a_fragment_does_not_leave_the_page(web: MiniWoB) -> None:
    """The right search result is a link to ``#``."""
    goal, _ = begin(web, "search-engine", 1)
    word, nth = goal.split('"')[1], int("".join(c for c in goal.split("click the")[1] if c.isdigit()))
    web.step(f'fill("{ref(web, "textbox")}", "{word}")')
    web.step(f'click("{ref(web, "button", "Search")}")')
    for _ in range((nth - 1) // 3):
        web.step(f'click("{ref(web, "link", ">")}")')
    links = [e for e in elements(web.observation) if e.role == "link"]
    _, reward, terminated, _, info = web.step(f'click("{links[(nth - 1) % 3].ref}")')
    assert web._page is not None
    assert web._page.url.endswith("#")
    assert (reward, terminated, info["diagnosis"].cause) == (1.0, True, Cause.SOLVED)


def test_date_picker_keeps_nothing_between_episodes(web: MiniWoB) -> None:
    def opened() -> str:
        begin(web, "choose-date", 3)
        return str(web.step(f'click("{ref(web, "textbox")}")')[0])

    first = opened()
    web.step(f'click("{ref(web, "link", "Prev")}")')
    web.step(f'click("{ref(web, "link", "Prev")}")')
    assert opened() == first


def test_widgets_work_by_the_five_actions(web: MiniWoB) -> None:
    """A menu that opens under the mouse, suggestions that come with the keys, a spinner that swallows keys."""
    goal, _ = begin(web, "click-menu", 1)
    for name in goal.removeprefix("Select ").split(">"):
        _, reward, *_ = web.step(f'click("{ref(web, "menuitem", name)}")')
    assert reward == 1.0

    goal, _ = begin(web, "use-autocomplete", 1)
    start, end = goal.split('"')[1::2]
    web.step(f'fill("{ref(web, "textbox")}", "{start}")')
    offered = [e for e in elements(web.observation) if e.ref and e.name.startswith(start) and e.name.endswith(end)]
    web.step(f'click("{offered[0].ref}")')
    assert web.step(f'click("{ref(web, "button")}")')[1] == 1.0

    goal, _ = begin(web, "use-spinner", 1)
    web.step(f'fill("{ref(web, "spinbutton")}", "{goal.split()[1]}")')
    assert web.step(f'click("{ref(web, "button", "Submit")}")')[1] == 1.0

    begin(web, "enter-date", 1)
    *_, info = web.step('fill("r1", "next Tuesday")')
    assert info["diagnosis"].cause is Cause.ACTION_FAILED
    assert "2016-03-09" in info["diagnosis"].evidence


def test_page_has_no_network(web: MiniWoB) -> None:
    """Neither a server on this machine nor a file outside the pages can be reached."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    outside = Path(__file__).as_uri()
    begin(web, "click-test")
    port = server.server_port
    script = f"""async () => {{
        const tried = [];
        for (const url of ['http://127.0.0.1:{port}/fetch', 'http://localhost:{port}/fetch', 'https://example.org/'])
            tried.push(await fetch(url, {{mode: 'no-cors'}}).then(() => 'reached', () => 'denied'));
        const load = (tag, url) => new Promise(done => {{
            const el = document.createElement(tag);
            el.onload = () => done('reached');
            el.onerror = () => done('denied');
            el.src = url;
            document.body.append(el);
        }});
        tried.push(await load('img', 'http://127.0.0.1:{port}/img'), await load('script', '{outside}'));
        tried.push(await new Promise(done => {{
            const socket = new WebSocket('ws://127.0.0.1:{port}/socket');
            socket.onopen = () => done('reached');
            socket.onerror = () => done('denied');
        }}));
        return tried;
    }}"""
    try:
        assert in_page(web, script) == ["denied"] * 6
        assert not asked
    finally:
        server.shutdown()
        server.server_close()


def test_leaving_the_page_ends_the_episode(web: MiniWoB) -> None:
    begin(web, "click-test")
    in_page(web, "() => { d3.select('#subbtn').on('click', () => { location.href = 'about:blank'; }); }")
    observation, reward, terminated, *_ = web.step('click("r1")')
    assert (observation, reward, terminated) == ('text "The page is gone."', 0.0, True)
    assert begin(web, "click-test")[1] == '[r1] button "Click Me!"'


def test_hanging_page_costs_one_episode(web: MiniWoB) -> None:
    stuck = MiniWoB(step_timeout=3)
    try:
        begin(stuck, "click-test")
        begin(web, "click-test")
        in_page(stuck, "() => { setTimeout(() => { for (;;); }, 50) }")
        with pytest.raises(EnvironmentBroken, match="did not answer within 3 s"):
            _wait(stuck)
        assert web.step('click("r1")')[1] == 1.0
        begin(stuck, "click-test")
        assert stuck.step('click("r1")')[1] == 1.0
    finally:
        stuck.close()


def test_killed_browser_is_replaced(web: MiniWoB) -> None:
    begin(web, "click-test")
    for pid in _browsers():
        os.kill(pid, signal.SIGKILL)
    with pytest.raises(EnvironmentBroken):
        _wait(web)
    begin(web, "click-test")
    assert web.step('click("r1")')[1] == 1.0


def test_many_contexts_at_once() -> None:
    """Eight episodes in one browser, each the same as when it runs alone."""

    def play(seed: int) -> tuple[str, str, float]:
        environment = MiniWoB()
        try:
            goal, observation = begin(environment, "enter-text", seed)
            environment.step(f'fill("r1", "{goal.split(chr(34))[1]}")')
            return goal, observation, environment.step('click("r2")')[1]
        finally:
            environment.close()

    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(play, range(8)))
    assert together[:2] == [play(0), play(1)]
    assert len({goal for goal, *_ in together}) >= 6
    assert {reward for *_, reward in together} == {1.0}


def test_last_close_ends_the_browser() -> None:
    code = (
        "from tutelage.environments.miniwob import MiniWoB, browser\n"
        "import sys; assert 'playwright' not in sys.modules\n"
        "a, b = MiniWoB(), MiniWoB()\n"
        "a.reset(options={'family': 'click-test'}); a.close(); b.reset(options={'family': 'click-test'}); b.close()\n"
        "assert not browser._shared\n"
        "MiniWoB().reset(options={'family': 'click-test'})  # left open: the interpreter closes it\n"
    )
    done = subprocess.run([sys.executable, "-c", code], timeout=60, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_missing_parts_name_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingPart, match="apt-get install -y chromium"):
        MiniWoB(executable="/nowhere/chromium")
    monkeypatch.setattr(catalogue, "find_spec", lambda name: None)
    with pytest.raises(MissingPart, match="pip install --no-deps miniwob=="):
        MiniWoB()


def test_unknown_family(web: MiniWoB) -> None:
    with pytest.raises(UnknownName, match="click-everything"):
        begin(web, "click-everything")


def _wait(web: MiniWoB) -> None:
    for _ in range(20):
        web.step("noop()")


def _browsers() -> list[int]:
    """Browser processes (not their helpers) that descend from this process."""
    parents, found = {}, []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                command = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue  # it ended meanwhile
            if b"--remote-debugging-pipe" in command and not any(part.startswith(b"--type=") for part in command):
                found.append(int(entry.name))

    def ours(pid: int) -> bool:
        while pid in parents and pid != os.getpid():
            pid = parents[pid]
        return pid == os.getpid()

    return [pid for pid in found if ours(pid)]
