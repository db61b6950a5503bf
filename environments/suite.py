"""The environments of one configuration, taken together: their tasks in turn, and how to make each of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from inspect import signature
from typing import Any

from tutelage.designs import Design
from tutelage.environments.base import Environment, environment_class
from tutelage.errors import ConfigError
from tutelage.types import Split, Task


@dataclass(frozen=True)
class Part:
    """One environment with the task families that are used of it."""

    environment: type[Environment]
    families: tuple[str, ...]
    settings: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of its constructor."""

    @property
    def name(self) -> str:
        return self.environment.name


class Suite:
    """Draws tasks so that every environment has the same share, and within it every family.

    All tasks of a split stand in one endless sequence: the environments take turns, the families of each
    take turns, and a family's tasks follow in the order of its seeds. Any two stretches of it are disjoint,
    save where an environment has a fixed set of tasks, which begins again after the last one.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = tuple(parts)
        self._by_name = {part.name: part for part in parts}

    @classmethod
    def open(cls, wanted: Sequence[tuple[str, Sequence[str], dict[str, Any]]]) -> "Suite":
        """A suite of (name, families, settings); no families means all of them.

        Raises:
            ConfigError: an environment comes twice, or has no such family.
            UnknownName: there is no such environment.
        """
        parts = []
        for name, families, settings in wanted:
            plain = environment_class(name)
            found = plain.configured(**settings)
            known = found.families()
            unknown = sorted(set(families) - set(known))
            if unknown:
                raise ConfigError(
                    f"environment {found.name} has no task family {', '.join(unknown)}; "
                    f"`tutelage env show {name}` lists them"
                )
            _check_settings(found, settings if found is plain else {})
            parts.append(Part(found, tuple(families) or known, settings if found is plain else {}))
        names = [part.name for part in parts]
        if len(set(names)) < len(names):
            raise ConfigError(f"environments: {', '.join(names)}: each may be named once; give it several families")
        return cls(parts)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._by_name)

    @property
    def with_gold(self) -> tuple[str, ...]:
        """The environments whose tasks come with a known solution (`tutelage.agents.oracle`)."""
        return tuple(part.name for part in self.parts if hasattr(part.environment, "gold"))

    @property
    def families(self) -> tuple[str, ...]:
        """All families as ``environment/family``."""
        return tuple(f"{part.name}/{family}" for part in self.parts for family in part.families)

    def only(self, families: Sequence[str] = (), environments: Sequence[str] | None = None) -> "Suite":
        """The part of it with these families (``family`` or ``environment/family``) and environments; may be empty.

        Raises:
            ConfigError: a family is unknown.
        """
        wanted = [part for part in self.parts if environments is None or part.name in environments]
        if families:
            known = {f for part in wanted for family in part.environment.families() for f in _names(part, family)}
            unknown = sorted(set(families) - known)
            if unknown:
                raise ConfigError(
                    f"no environment here ({', '.join(self.names)}) has {', '.join(unknown)}; "
                    "`tutelage env show NAME` lists the families"
                )
        chosen = [
            replace(part, families=tuple(f for f in part.environment.families() if _names(part, f) & set(families)))
            if families
            else part
            for part in wanted
        ]
        return Suite([part for part in chosen if part.families])

    def with_designs(self, designs: Sequence[Design]) -> "Suite":
        """The same, able to play these designed tasks too."""
        return Suite(
            [
                replace(part, environment=part.environment.with_designs(mine))
                if (mine := [design for design in designs if design.task.environment == part.name])
                else part
                for part in self.parts
            ]
        )

    def tasks(self, split: Split, start: int, count: int) -> list[Task]:
        """`count` tasks of the sequence from place `start` on."""
        return [task for place in range(start, start + count) if (task := self._task(split, place)) is not None]

    def _task(self, split: Split, place: int) -> Task | None:
        turn, which = divmod(place, len(self.parts))
        part = self.parts[which]
        start, family = divmod(turn, len(part.families))
        return next(iter(part.environment.tasks(split, [part.families[family]], start=start)), None)

    def make(self, name: str) -> Environment:
        """A new environment for collecting and training."""
        part = self._by_name[name]
        return part.environment(**part.settings)

    def make_for_evaluation(self, name: str) -> Environment:
        """A new environment for measuring, which shares nothing between episodes."""
        part = self._by_name[name]
        return part.environment.for_evaluation(**part.settings)


def _check_settings(environment: type[Environment], settings: dict[str, Any]) -> None:
    try:
        signature(environment).bind(**settings)
    except TypeError as error:
        raise ConfigError(f"settings of environment {environment.name}: {error}") from error


def _names(part: Part, family: str) -> set[str]:
    return {family, f"{part.name}/{family}"}
