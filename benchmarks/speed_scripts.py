"""What both backends do in each episode of `miniwob_speed.py`, from the goal's text alone."""

import re

Move = tuple[str, str, str | int, str]
"""Action, role, name (or which one of the role), text."""

FAMILIES = (
    "click-test",
    "click-test-2",
    "click-option",
    "click-checkboxes",
    "click-checkboxes-large",
    "enter-text",
    "enter-password",
    "login-user",
)


def script_for(family: str, goal: str) -> list[Move]:
    """The moves that solve an episode."""
    quoted = re.findall(r'"([^"]*)"', goal)
    if family == "click-test":
        return [("click", "button", 0, "")]
    if family == "click-test-2":
        return [("click", "button", "ONE", "")]
    if family in ("enter-text", "enter-password", "login-user"):
        texts = quoted * 2 if family == "enter-password" else quoted
        moves: list[Move] = [("fill", "textbox", index, text) for index, text in enumerate(texts)]
        return [*moves, ("click", "button", 0, "")]
    role = "radio" if family == "click-option" else "checkbox"
    names = goal.removeprefix("Select ").removesuffix(" and click Submit.")
    wanted = [] if names == "nothing" else names.split(", ")
    return [*(("click", role, name, "") for name in wanted), ("click", "button", "Submit", "")]
