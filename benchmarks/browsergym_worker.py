"""Runs inside BrowserGym's own virtual environment; `miniwob_speed.py` starts it. No part of Tutelage is here.

Reads a JSON plan ``{"mode": ..., "episodes": [{"family", "seed"}]}`` from standard input and writes one JSON
line per episode: goal, reward, number of steps, seconds in `reset` and in `step`.
"""

import json
import re
import sys
import time
from typing import Any

from speed_scripts import script_for

LINE = re.compile(r"^\s*\[(\w+)\] (\w+) '((?:[^'\\]|\\.)*)'")


class NoChat:
    """Stands in for BrowserGym's chat window, which is a second browser that nobody looks at here."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self.messages: list[dict[str, Any]] = []

    def add_message(self, role: str, msg: str) -> None:
        self.messages.append({"role": role, "message": msg, "timestamp": time.time()})

    def close(self) -> None:
        """Nothing to close."""


def patch() -> None:
    """One browser for all episodes, and no chat window."""
    import browsergym.core.env
    from playwright.sync_api import Browser, BrowserType

    launch, kept = BrowserType.launch, []

    def launch_once(self: BrowserType, **options: Any) -> Browser:
        if not kept:
            kept.append(launch(self, **options))
        return kept[0]

    BrowserType.launch = launch_once
    Browser.close = lambda self, **_: None
    browsergym.core.env.Chat = NoChat


def play(mode: str, family: str, seed: int) -> dict[str, Any]:
    import browsergym.miniwob  # noqa: F401
    import gymnasium
    from browsergym.utils.obs import flatten_axtree_to_str

    options = {"slow_mo": 0, "pre_observation_delay": 0} if mode == "patched" else {}
    environment = gymnasium.make(f"browsergym/miniwob.{family}", **options)
    begun = time.perf_counter()
    observation, _ = environment.reset(seed=seed)
    spent_reset, spent_step, steps, reward = time.perf_counter() - begun, 0.0, 0, 0.0
    goal = observation["goal"]
    for action, role, name, text in script_for(family, goal):
        lines = [LINE.match(line) for line in flatten_axtree_to_str(observation["axtree_object"]).splitlines()]
        found = [m[1] for m in lines if m and m[2] == role and (isinstance(name, int) or m[3].strip() == name)]
        bid = found[name if isinstance(name, int) else 0]
        call = f"{action}({bid!r}, {text!r})" if action == "fill" else f"{action}({bid!r})"
        begun = time.perf_counter()
        observation, reward, terminated, _, _ = environment.step(call)
        spent_step += time.perf_counter() - begun
        steps += 1
        if terminated:
            break
    environment.close()
    return {"goal": goal, "reward": reward, "steps": steps, "reset": spent_reset, "step": spent_step}


def main() -> None:
    plan = json.load(sys.stdin)
    if plan["mode"] == "patched":
        patch()
    for episode in plan["episodes"]:
        print(json.dumps(play(plan["mode"], episode["family"], episode["seed"])), flush=True)


if __name__ == "__main__":
    main()
