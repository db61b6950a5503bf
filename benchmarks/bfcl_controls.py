"""What BFCL's official checkers accept: the reference solutions, and four ways of getting them wrong.

    python benchmarks/bfcl_controls.py

Every task of the four families is played once per control against the `bfcl` environment's world and referee, and
the same calls are given to BFCL's own `multi_turn_checker`, which evaluates them as Python; the last column counts
the tasks on which the two disagree. Wrong episodes that are accepted are listed with the reason.
"""

import copy
import random
import time
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

from rich.console import Console
from rich.table import Table

from tutelage.environments.bfcl import data
from tutelage.environments.bfcl.checker import Referee
from tutelage.environments.bfcl.data import GoldCall, Scenario
from tutelage.environments.bfcl.world import World
from tutelage.tools import meaning, write_call

Turns = list[list[GoldCall]]
Control = Callable[[Scenario, random.Random], tuple[Turns, str] | None]
"""From a scenario to the calls of each turn and what is wrong with them; None where it does not apply."""
_runs = count()

UNASKED = {
    "GorillaFileSystem": [GoldCall("touch", {"file_name": "unasked.txt"})],
    "VehicleControlAPI": [
        GoldCall("fillFuelTank", {"fuelAmount": 0.5}),
        GoldCall("setHeadlights", {"mode": "on"}),
        GoldCall("setHeadlights", {"mode": "off"}),
    ],
    "TradingBot": [
        GoldCall("add_to_watchlist", {"stock": "NEPT"}),
        GoldCall("fund_account", {"amount": 1.0}),
        GoldCall("trading_logout", {}),
    ],
    "TravelAPI": [
        GoldCall(
            "authenticate_travel",
            {
                "client_id": "unasked",
                "client_secret": "unasked",
                "refresh_token": "unasked",
                "grant_type": "read",
                "user_first_name": "Una",
                "user_last_name": "Sked",
            },
        )
    ],
}
"""Calls that nobody asked for, by class; the first that changes its state is used."""


def main() -> None:
    scenarios = [data.scenario(family, number) for family in data.FAMILIES for number in range(data.COUNT)]
    table = Table("control", "tasks", "accepted", *data.FAMILIES, "seconds", "BFCL differs")
    lists: dict[str, dict[tuple[int, str], list[str]]] = {}
    for name, control in CONTROLS.items():
        table.add_row(name, *_measure(scenarios, control, lists.setdefault(name, {})))
    console = Console(width=160)
    console.print(table)
    for name, accepted in list(lists.items())[1:]:
        lines = [f"  {number} ({', '.join(found)}) {change}" for (number, change), found in accepted.items()]
        console.print("\n".join(["", f"{name}, and accepted:", *(lines or ["  none"])]), markup=False, soft_wrap=True)


def _measure(scenarios: Sequence[Scenario], control: Control, accepted: dict[tuple[int, str], list[str]]) -> list[str]:
    """A row of the table; `accepted` receives scenario and change → families."""
    tasks, differing, families, seconds = 0, 0, dict.fromkeys(data.FAMILIES, 0), 0.0
    for scenario in scenarios:
        made = control(scenario, random.Random(f"bfcl control {scenario.number}"))
        if made is None:
            continue
        turns, change = made
        begun = time.perf_counter()
        passed = play(scenario, turns)
        seconds += time.perf_counter() - begun
        tasks += 1
        differing += passed != official(scenario, turns)
        if passed:
            family = scenario.id.removeprefix("multi_turn_").rpartition("_")[0]
            families[family] += 1
            accepted.setdefault((scenario.number, change), []).append(family)
    return [str(tasks), str(sum(families.values())), *map(str, families.values()), f"{seconds:.1f}", str(differing)]


def play(scenario: Scenario, turns: Turns) -> bool:
    world, referee = World(scenario), Referee(scenario)
    for turn in turns:
        for call in turn:
            referee.saw(world.call(call.name, call.arguments))
        referee.close_turn(world)
    return referee.all_passed


def official(scenario: Scenario, turns: Turns) -> bool:
    """BFCL's own verdict; its worlds live on under the name of the model, so each run gets a new one."""
    entry = {"initial_config": scenario.config, "involved_classes": list(scenario.classes), "id": scenario.id}
    steps = [[[_python(call)] for call in turn] for turn in turns]
    gold = [[_python(call) for call in turn] for turn in scenario.gold]
    verdict = data.checkers().multi_turn_checker(steps, gold, entry, "", f"run{next(_runs)}")
    return bool(verdict["valid"])


def _python(call: GoldCall) -> str:
    return f"{call.name}({', '.join(f'{name}={value!r}' for name, value in call.arguments.items())})"


# -- controls -----------------------------------------------------------------------------------


def _gold(scenario: Scenario, rng: random.Random) -> tuple[Turns, str]:
    return [list(turn) for turn in scenario.gold], ""


def _drop_last(scenario: Scenario, rng: random.Random) -> tuple[Turns, str]:
    return [list(turn[:-1]) for turn in scenario.gold], "without the last call of every turn"


def _drop_one(scenario: Scenario, rng: random.Random) -> tuple[Turns, str] | None:
    turns = [list(turn) for turn in scenario.gold]
    place, index = rng.choice([(t, i) for t, turn in enumerate(turns) for i in range(len(turn))])
    dropped = turns[place].pop(index)
    return turns, f"without {_written(dropped)}"


def _wrong_argument(scenario: Scenario, rng: random.Random) -> tuple[Turns, str] | None:
    turns = [list(turn) for turn in scenario.gold]
    places = [
        (t, i, name) for t, turn in enumerate(turns) for i, call in enumerate(turn) for name in sorted(call.arguments)
    ]
    if not places:
        return None
    place, index, name = rng.choice(places)
    call = turns[place][index]
    changed = GoldCall(call.name, call.arguments | {name: _other(call.arguments[name])})
    turns[place][index] = changed
    difference = _difference(scenario, place, index, changed)
    return turns, f"{call.name} with {name}={changed.arguments[name]!r} for {call.arguments[name]!r}: {difference}"


def _unasked_call(scenario: Scenario, rng: random.Random) -> tuple[Turns, str] | None:
    turns = [list(turn) for turn in scenario.gold]
    place = rng.randrange(len(turns))
    for name in scenario.classes:
        for extra in UNASKED.get(name, ()):
            before = _before(scenario, place, len(turns[place]))
            after = copy.deepcopy(before)
            after.call(extra.name, extra.arguments)
            if not data.checkers().state_checker(after.instances, before.instances)["valid"]:
                turns[place].append(extra)
                graded = [turn for turn, gold in enumerate(scenario.gold) if gold and turn >= place]
                reason = "a later call undoes it" if graded else "no turn with a reference solution comes after it"
                return turns, f"also {_written(extra)}: {reason}"
    return None


CONTROLS: dict[str, Control] = {
    "reference solution": _gold,
    "last call of every turn dropped": _drop_last,
    "one call dropped": _drop_one,
    "one argument changed": _wrong_argument,
    "one more call, which changes the state": _unasked_call,
}


def _other(value: Any) -> Any:
    """A different value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, str):
        return value + "x"
    return value[:-1] if isinstance(value, list) and value else ["x"] if isinstance(value, list) else {}


def _before(scenario: Scenario, turn: int, index: int) -> World:
    """The world before the call at this place of the reference solution."""
    world = World(scenario)
    for calls in (*scenario.gold[:turn], scenario.gold[turn][:index]):
        for call in calls:
            world.call(call.name, call.arguments)
    return world


def _difference(scenario: Scenario, turn: int, index: int, instead: GoldCall) -> str:
    """What the checkers can see of `instead` in the place of the reference call."""
    call, right, wrong = scenario.gold[turn][index], _before(scenario, turn, index), _before(scenario, turn, index)
    expected, result = right.call(call.name, call.arguments), wrong.call(instead.name, instead.arguments)
    same_state = data.checkers().state_checker(wrong.instances, right.instances)["valid"]
    if result == expected and same_state:
        return f"same state and same result, {expected[:70]}"
    return "the state is mended later" if result == expected else "another call gives the expected result"


def _written(call: GoldCall) -> str:
    return meaning(write_call(call.name, call.arguments))[:120]


if __name__ == "__main__":
    main()
