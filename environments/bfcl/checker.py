"""An episode's score: after every turn the official state and response checkers, unchanged.

The order of checks is that of BFCL's `multi_turn_checker`; that function itself is not called because it evaluates
calls as Python. A turn without a reference solution passes whatever is done in it; what is done in it still shows in
the state that later turns are compared by.
"""

from typing import Any

from tutelage.environments.bfcl.data import Scenario, checkers
from tutelage.environments.bfcl.world import World


class Referee:
    """Follows the turns of one episode beside a world of its own in which the reference solution runs."""

    def __init__(self, scenario: Scenario) -> None:
        self._gold = scenario.gold
        self._reference = World(scenario)
        self._results: list[str] = []
        """Results of all calls so far, in full."""
        self._calls = 0
        """Calls of the present turn."""
        self.turn = 0
        self.passed = 0
        """Turns that passed."""

    @property
    def all_passed(self) -> bool:
        return self.passed == self.turn

    def saw(self, result: str) -> None:
        """Take note of the full result of one call."""
        self._results.append(result)
        self._calls += 1

    def close_turn(self, world: World) -> None:
        """Check the present turn against its reference solution and begin the next."""
        gold = self._gold[self.turn]
        expected = [self._reference.call(call.name, call.arguments) for call in gold]
        if not gold or (self._calls and self._accepts(world, expected)):
            self.passed += 1
        self.turn += 1
        self._calls = 0

    def _accepts(self, world: World, expected: list[str]) -> bool:
        official: Any = checkers()
        if not official.state_checker(world.instances, self._reference.instances)["valid"]:
            return False
        return bool(official.response_checker(self._results, expected, self.turn)["valid"])
