"""An environment outside the library: find a number by guessing. Run me: ``python guess.py``."""

import random
from typing import ClassVar

from tutelage.calls import Call, CallError
from tutelage.environments import Environment, Outcome
from tutelage.types import Split, Task

TOP = {"small": 10, "large": 1000}


class Guess(Environment):
    """One hidden number; every answer says whether it is higher or lower."""

    name: ClassVar[str] = "guess"
    trust: ClassVar[float] = 1.0
    system: str = "Find the number. Action: guess(7)."

    @classmethod
    def families(cls) -> tuple[str, ...]:
        return tuple(sorted(TOP))

    def start(self, task: Task) -> tuple[str, str]:
        top = TOP[task.family]
        self._number = random.Random(task.id).randint(1, top)
        return f"Find the number from 1 to {top}.", f"from 1 to {top}"

    def act(self, call: Call) -> Outcome:
        if call.name != "guess" or len(call.args) != 1 or type(call.args[0]) is not int:
            raise CallError("The only action is guess(n) with a whole number, e.g. guess(7).")
        guess = call.args[0]
        if guess == self._number:
            return Outcome("right", reward=1.0, terminated=True)
        return Outcome(f"{guess} is too {'low' if guess < self._number else 'high'}")


def main() -> None:
    """Play one episode by halving."""
    environment = Guess()
    low, high = 1, TOP["small"]
    observation, info = environment.reset(options={"task": Guess.tasks(Split.TRAIN, ["small"])[0]})
    print(info["goal"])
    terminated = False
    while not terminated:
        guess = (low + high) // 2
        observation, reward, terminated, _, info = environment.step(f"guess({guess})")
        print(f"guess({guess}) -> {observation} ({info['diagnosis'].cause}, reward {reward:g})")
        low, high = (guess + 1, high) if observation.endswith("low") else (low, guess - 1)


if __name__ == "__main__":
    main()
