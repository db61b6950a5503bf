"""A synthetic world, the same on every machine: towns, rivers, bridges, companies and their leaders.

Nothing in it is real. Every thing belongs to one part (`Split`): questions of a split ask only about things of
that part, while the search goes over all of them.
"""

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache
from typing import TypeVar

from tutelage.environments.search_index import Passage, SearchIndex
from tutelage.types import Split

T = TypeVar("T")

SEED = "tutelage research world 1"
SIZES = {
    "town": {Split.TRAIN: 60, Split.VALIDATION: 20, Split.TEST: 20},
    "company": {Split.TRAIN: 60, Split.VALIDATION: 20, Split.TEST: 20},
    "river": {Split.TRAIN: 48, Split.VALIDATION: 16, Split.TEST: 16},
}


def _words(text: str) -> list[str]:
    return text.split()


_TOWN = _words("Alder Brenn Carl Dun East Fal Green Hazel Ing Kirk Lang Marl North Oak Pem Rush Stan Thorn Up West")
_TOWN_END = _words("wick ford ham stead mere by ton field dale worth")
_COMPANY = _words("Tel Cor Vel Bry Dan Fen Gal Hex Jun Lum Mar Nor Ost Pra Rad Sil Tor Ulm Zan Kel")
_COMPANY_END = _words("vex mar dyne tek nova lux rix bond gon zor")
_RIVER = _words("Or Is Av Ell Tam Sev Lor Nid Wey Dov Cal Ure Esk Mol Arn Thur")
_RIVER_END = _words("ne ra ow en sa el un wy")
_BRIDGE = _words("Har Sel Bar Mor Wil Cran Dal Ful Gar Hol Ken Lam Mel New Pat Rom Sand Tal")
_BRIDGE_END = _words("row ley nard ker den gate kin mont rick shaw well ton")
_FIRST = _words("Ana Ben Clara David Emma Felix Grace Hugo Ida Jonas Kate Leo Maria Nina Oscar Paul Rosa Simon")
_LAST = _words("Abel Brook Carver Dean Ellis Frost Gray Hart Irving Jordan Kerr Lowe Marsh Nash Owen Price Quinn Reed")
_GOODS = _words("clocks bicycles paper glass boats radios furniture tea shoes tractors")


@dataclass(frozen=True)
class Town:
    name: str
    population: int
    area: int
    """Square kilometres."""
    founded: int


@dataclass(frozen=True)
class Company:
    name: str
    founded: int
    leader: str
    born: date
    """The leader's day of birth."""


@dataclass(frozen=True)
class Bridge:
    name: str
    height: int
    """Metres, as the length."""
    length: int


@dataclass(frozen=True)
class River:
    name: str
    bridges: tuple[Bridge, ...]


@dataclass(frozen=True)
class World:
    """All things by the split whose questions ask about them, and what is written about them."""

    towns: dict[Split, list[Town]]
    companies: dict[Split, list[Company]]
    rivers: dict[Split, list[River]]
    passages: tuple[Passage, ...]


@lru_cache(maxsize=1)
def world() -> World:
    """The world, made once per process."""
    rng = random.Random(SEED)
    used: set[str] = set()
    towns = _parts("town", lambda: _town(rng, used))
    companies = _parts("company", lambda: _company(rng, used))
    rivers = _parts("river", lambda: _river(rng, used))
    passages = [_about_town(town, rng) for town in _all(towns)]
    for company in _all(companies):
        seat, home = rng.choices([town.name for town in _all(towns)], k=2)
        passages += [_about_company(company, seat, rng), _about_leader(company, home, rng)]
    for river in _all(rivers):
        passages += [_about_river(river, rng), *(_about_bridge(bridge, river, rng) for bridge in river.bridges)]
    rng.shuffle(passages)
    return World(towns, companies, rivers, tuple(passages))


@lru_cache(maxsize=1)
def index() -> SearchIndex:
    """The search index over the whole world, made once per process.

    Raises:
        MissingPart: the search library is not installed.
    """
    return SearchIndex(world().passages)


# -- things -------------------------------------------------------------------------------------


def _parts(kind: str, make: Callable[[], T]) -> dict[Split, list[T]]:
    return {split: [make() for _ in range(count)] for split, count in SIZES[kind].items()}


def _all(parts: dict[Split, list[T]]) -> Iterable[T]:
    return (thing for part in parts.values() for thing in part)


def _town(rng: random.Random, used: set[str]) -> Town:
    name = _name(rng, used, _TOWN, _TOWN_END)
    return Town(name, rng.randint(1200, 98000), rng.randint(8, 95), rng.randint(1050, 1850))


def _company(rng: random.Random, used: set[str]) -> Company:
    name = _name(rng, used, _COMPANY, _COMPANY_END)
    leader = _name(rng, used, _FIRST, _LAST, " ")
    born = date(1950, 1, 1) + timedelta(days=rng.randrange(14000))
    return Company(name, rng.randint(1860, 2015), leader, born)


def _river(rng: random.Random, used: set[str]) -> River:
    name = _name(rng, used, _RIVER, _RIVER_END)
    names = [_name(rng, used, _BRIDGE, _BRIDGE_END) for _ in range(rng.choice((2, 2, 3)))]
    return River(name, tuple(Bridge(f"{b} Bridge", rng.randint(9, 95), rng.randint(60, 900)) for b in names))


def _name(rng: random.Random, used: set[str], starts: list[str], ends: list[str], between: str = "") -> str:
    """A name that nothing else in this world bears."""
    while True:
        name = f"{rng.choice(starts)}{between}{rng.choice(ends)}"
        if name not in used:
            used.add(name)
            return name


# -- what is written about them -----------------------------------------------------------------


def _about_town(town: Town, rng: random.Random) -> Passage:
    name, people, area, year = town.name, town.population, town.area, town.founded
    texts = (
        f"{name} is a town of {people} people. It covers {area} square km and was founded in {year}.",
        f"The town of {name}, founded in {year}, has {people} people and an area of {area} square km.",
        f"{name} is a town of {area} square km with {people} people. It was founded in {year}.",
    )
    return Passage(name, rng.choice(texts))


def _about_company(company: Company, seat: str, rng: random.Random) -> Passage:
    name, year, goods = company.name, company.founded, rng.choice(_GOODS)
    texts = (
        f"{name} is a company in {seat}. It was founded in {year} and makes {goods}.",
        f"The company {name}, founded in {year}, makes {goods} in {seat}.",
    )
    return Passage(name, rng.choice(texts))


def _about_leader(company: Company, home: str, rng: random.Random) -> Passage:
    name, born = company.leader, company.born.isoformat()
    texts = (
        f"{name} leads {company.name}, was born on {born} and lives in {home}.",
        f"{name}, born on {born} in {home}, leads {company.name}.",
    )
    return Passage(name, rng.choice(texts))


def _about_river(river: River, rng: random.Random) -> Passage:
    names = [bridge.name for bridge in river.bridges]
    bridges = f"{', '.join(names[:-1])} and {names[-1]}"
    texts = (
        f"The {river.name} is a river of {rng.randint(40, 400)} km. Its bridges are {bridges}.",
        f"The river {river.name} is {rng.randint(40, 400)} km long. Its bridges are {bridges}.",
    )
    return Passage(river.name, rng.choice(texts))


def _about_bridge(bridge: Bridge, river: River, rng: random.Random) -> Passage:
    name, height, length, year = bridge.name, bridge.height, bridge.length, rng.randint(1880, 2010)
    texts = (
        f"{name} crosses the {river.name}. It is {height} m high and {length} m long.",
        f"{name}, opened in {year}, is {length} m long and {height} m high. It crosses the {river.name}.",
    )
    return Passage(name, rng.choice(texts))
