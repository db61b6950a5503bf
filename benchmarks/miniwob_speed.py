"""MiniWoB++ steps per second: Tutelage's backend against BrowserGym, default and patched, in one run.

    python benchmarks/miniwob_speed.py --browsergym-venv     # makes BrowserGym's environment the first time

All three play the same episodes (same pages, same page seeds, same moves) one after the other; the table says
how fast, and where goals or rewards differ. BrowserGym pins an older Playwright and so needs a virtual
environment of its own. ``patched`` is BrowserGym without its delays, its chat window and its browser start
per episode. A last line shows Tutelage with several contexts at once, which BrowserGym's API does not have.
"""

import argparse
import json
import os
import subprocess
import sys
import time
import venv
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy
from rich.console import Console
from rich.table import Table
from speed_scripts import FAMILIES, script_for

from tutelage.environments.miniwob import MiniWoB, catalogue
from tutelage.environments.miniwob.browser import find_chromium
from tutelage.environments.page import elements
from tutelage.types import Split, Task

PACKAGES = ("browsergym-miniwob==0.14.3", "miniwob==1.1.0")
HERE = Path(__file__).parent


def page_seed(seed: int) -> int:
    """The number that BrowserGym seeds its page with."""
    return int(numpy.random.RandomState(seed).randint(0, 1000000))


def play(environment: MiniWoB, family: str, seed: int) -> dict[str, Any]:
    task = Task(environment="miniwob", family=family, seed=page_seed(seed), split=Split.TRAIN)
    begun = time.perf_counter()
    observation, info = environment.reset(options={"task": task})
    spent_reset, spent_step, steps, reward = time.perf_counter() - begun, 0.0, 0, 0.0
    for action, role, name, text in script_for(family, info["goal"]):
        found = [e.ref for e in elements(observation) if e.role == role and (isinstance(name, int) or e.name == name)]
        ref = found[name if isinstance(name, int) else 0]
        call = f"fill({json.dumps(ref)}, {json.dumps(text)})" if action == "fill" else f"{action}({json.dumps(ref)})"
        begun = time.perf_counter()
        observation, reward, terminated, _, _ = environment.step(call)
        spent_step += time.perf_counter() - begun
        steps += 1
        if terminated:
            break
    return {"goal": info["goal"], "reward": reward, "steps": steps, "reset": spent_reset, "step": spent_step}


def ours(episodes: list[dict[str, Any]], reload: bool = False) -> list[dict[str, Any]]:
    environment = MiniWoB(reload=reload)
    try:
        return [play(environment, **episode) for episode in episodes]
    finally:
        environment.close()


def at_once(episodes: list[dict[str, Any]], width: int) -> tuple[int, float]:
    """Steps and wall-clock seconds with `width` contexts in one browser, launch not counted."""
    environments = [MiniWoB() for _ in range(width)]
    try:
        with ThreadPoolExecutor(width) as pool:
            list(pool.map(lambda environment: environment.reset(), environments))
            begun = time.perf_counter()
            parts = pool.map(
                lambda index: [play(environments[index], **e) for e in episodes[index::width]], range(width)
            )
            steps = sum(result["steps"] for part in parts for result in part)
            return steps, time.perf_counter() - begun
    finally:
        for environment in environments:
            environment.close()


def browsergym(mode: str, python: Path, browsers: Path, episodes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    pages = (catalogue.pages_root() / "miniwob").as_uri() + "/"
    done = subprocess.run(
        [python, HERE / "browsergym_worker.py"],
        input=json.dumps({"mode": mode, "episodes": episodes}),
        env={**os.environ, "MINIWOB_URL": pages, "PLAYWRIGHT_BROWSERS_PATH": str(browsers)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def make_venv(folder: Path) -> tuple[Path, Path]:
    """BrowserGym's environment and a browsers folder in which its Playwright finds the system's Chromium."""
    python, browsers = folder / "bin" / "python", folder / "browsers"
    if not (folder / "complete").exists():
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
        (folder / "complete").touch()
    listing = next(folder.glob("lib/python*/site-packages/playwright/driver/package/browsers.json"))
    revision = next(b["revision"] for b in json.loads(listing.read_text())["browsers"] if b["name"] == "chromium")
    place = browsers / f"chromium-{revision}"
    (place / "chrome-linux").mkdir(parents=True, exist_ok=True)
    link = place / "chrome-linux" / "chrome"
    if not link.is_symlink():
        link.symlink_to(find_chromium())
    (place / "INSTALLATION_COMPLETE").touch()
    return python, browsers


def report(results: dict[str, list[dict[str, Any]]], episodes: list[dict[str, Any]], console: Console) -> None:
    table = Table("backend", "episodes", "solved", "steps", "reset ms", "step ms", "steps/s", "steps/s with resets")
    for name, rows in results.items():
        steps, reset, step = (sum(row[key] for row in rows) for key in ("steps", "reset", "step"))
        solved = sum(row["reward"] > 0 for row in rows)
        table.add_row(
            name, str(len(rows)), str(solved), str(steps), f"{1000 * reset / len(rows):.0f}",
            f"{1000 * step / steps:.0f}", f"{steps / step:.1f}", f"{steps / (step + reset):.1f}",
        )  # fmt: skip
    console.print(table)
    reference = results["tutelage"]
    for name, rows in results.items():
        differ = [
            f"{episode['family']}@{episode['seed']}"
            for episode, mine, theirs in zip(episodes, reference, rows, strict=True)
            if (" ".join(mine["goal"].split()), mine["reward"]) != (" ".join(theirs["goal"].split()), theirs["reward"])
        ]
        if rows is not reference:
            console.print(f"{name}: goal or reward differs in {len(differ)} of {len(rows)} episodes {differ or ''}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="episodes per family (default 3)")
    parser.add_argument("--width", type=int, default=8, help="contexts at once in the last line (default 8)")
    parser.add_argument("--browsergym-venv", action="store_true", help="make BrowserGym's environment and compare")
    arguments = parser.parse_args()
    console = Console(width=120)
    episodes = [{"family": family, "seed": seed} for family in FAMILIES for seed in range(arguments.seeds)]
    ours(episodes[:1])
    results = {"tutelage": ours(episodes), "tutelage, page reloaded": ours(episodes, reload=True)}
    if arguments.browsergym_venv:
        cache = Path(os.environ.get("TUTELAGE_CACHE") or Path.home() / ".cache" / "tutelage")
        python, browsers = make_venv(cache / "browsergym-venv")
        for mode in ("default", "patched"):
            results[f"browsergym, {mode}"] = browsergym(mode, python, browsers, episodes)
    report(results, episodes, console)
    steps, seconds = at_once(episodes * 2, arguments.width)
    console.print(
        f"tutelage, {arguments.width} contexts at once: {steps} steps, {steps / seconds:.1f} steps/s with resets"
    )


if __name__ == "__main__":
    sys.exit(main())
