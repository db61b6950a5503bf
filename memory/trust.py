"""How far words are trusted: by whose they are, and never more for being repeated.

A *voice* is a party that could be one and the same attacker: an environment whose pages or tools an agent read, or the
origin of a file or of what was written by hand. What the configuration does not name is one voice together, however
many sites, files or names it comes under.

Two tasks are *independent* if they were played in, or told of by, different voices. Only independent ones corroborate:
within a voice the best source counts and further ones add nothing, so whoever repeats itself, over any number of tasks,
pages or files, gains nothing. Voices that say exactly the same combine as if each could only err by itself.
"""

from collections.abc import Iterable
from functools import lru_cache

from tutelage.config import Config, MemoryConfig, TrustConfig
from tutelage.environments.base import UNTRUSTED, Environment, environment_class
from tutelage.errors import TutelageError
from tutelage.experience import Experience, Source
from tutelage.types import LIVE, OWN, Trajectory

HAND = "user"
"""Kind of the origins of people who write by hand."""


def with_declared(config: Config) -> MemoryConfig:
    """The settings of memory, with the trust that the classes of the environments in use declare where none is set."""
    classes = filter(None, (_class(item.name) for item in config.environments))
    declared = {found.name: found.trust for found in classes if found.trust > UNTRUSTED}
    trust = config.memory.trust
    found = trust.model_copy(update={"environments": {**declared, **trust.environments}})
    return config.memory.model_copy(update={"trust": found})


def of_environment(name: str, config: TrustConfig) -> float:
    """As configured, else as its class declares; one that is not known here is not trusted."""
    return config.environments.get(name, _declared(name))


def of_origin(origin: str, config: TrustConfig) -> float:
    """As configured for just this origin, else for its kind; 0 for a kind that is not listed."""
    return config.sources.get(origin, config.sources.get(origin.partition(":")[0], 0.0))


def of_trajectory(trajectory: Trajectory, config: TrustConfig) -> float:
    """The least of its environment and its origin."""
    return _least(trajectory.task.environment, trajectory.origin, config)


def vouched_for(trajectory: Trajectory, config: TrustConfig) -> bool:
    """Whether its right steps and mistakes count for and against the guardrails of others: those of an import
    or a served conversation are what others made of them, who have to be trusted for that."""
    return trajectory.origin == OWN or of_trajectory(trajectory, config) >= config.threshold


def of_source(source: Source, environment: str, config: TrustConfig) -> float:
    """The least of environment and origin. Of the origin alone where the words are a person's own, whatever they rest
    on, and where no episode stands behind them."""
    origin = of_origin(source.origin, config)
    person = source.origin.partition(":")[0] == HAND
    played = source.origin == OWN or bool(source.trajectory)
    return _least(environment, source.origin, config) if played and not person else origin


def of_sources(experience: Experience, config: TrustConfig) -> float:
    """What an experience is worth if it says just what each of its sources says: the best of each voice, combined.

    Something that others were merged into is worth the least of its sources instead.
    """
    found = [(voice(item, experience.environment, config), item) for item in experience.sources]
    trusts = [(name, of_source(item, experience.environment, config)) for name, item in found]
    return min(trust for _, trust in trusts) if experience.merged else combined(trusts)


def combined(trusts: Iterable[tuple[str, float]]) -> float:
    """Of (voice, trust): the chance that not all voices are false, if each is true with its own trust by itself."""
    best: dict[str, float] = {}
    for name, trust in trusts:
        best[name] = max(trust, best.get(name, 0.0))
    doubt = 1.0
    for trust in best.values():
        doubt *= 1 - trust
    return max(max(best.values(), default=0.0), 1 - doubt) if len(best) > 1 else max(best.values(), default=0.0)


def voice(source: Source, environment: str, config: TrustConfig) -> str:
    """Whose words those of a source are, as far as the configuration can tell parties apart."""
    if source.origin != OWN:
        return source.origin if source.origin in config.sources else f"{source.origin.partition(':')[0]}:*"
    declared = _declared(environment) > UNTRUSTED
    return f"{OWN} {environment}" if environment in config.environments or declared else f"{OWN} *"


def _least(environment: str, origin: str, config: TrustConfig) -> float:
    """Of a served conversation the environment is but a name that it is filed under, unless it is configured."""
    live = origin.partition(":")[0] == LIVE
    place = config.environments.get(environment, 1.0) if live else of_environment(environment, config)
    return min(place, of_origin(origin, config))


def _declared(name: str) -> float:
    found = _class(name)
    return UNTRUSTED if found is None else found.trust


@lru_cache(maxsize=256)
def _class(name: str) -> type[Environment] | None:
    """None for one that is not known here."""
    try:
        return environment_class(name)
    except (TutelageError, ImportError):
        return None
