"""Which settings a cycle that is unfinished may go on without keeping: all others decide what a student learns."""

from typing import Any

from tutelage.config import Config

FREE_TO_CHANGE = {
    "workspace",
    "loop",
    "annotate",
    "budget",
    "cassette",
    "tracking",
    "jobs",
    "triggers",
    "serve",
}
"""Settings that may differ when an unfinished cycle goes on."""
OF_MEMORY = {"micro_batch_size", "gradient_checkpointing"}
"""Settings of a stage that may: they say how its steps are reckoned, not what it learns."""


def as_learnt(config: Config) -> dict[str, Any]:
    """The settings as JSON without those that may differ when an unfinished cycle goes on."""
    settings = config.model_dump(mode="json", exclude=FREE_TO_CHANGE)
    return {**settings, "stages": [_without_memory(stage) for stage in settings["stages"]]}


def with_memory_of(config: Config, present: Config) -> Config:
    """The settings, but where a stage is to learn the same by the present ones, it takes memory as these say."""
    # A batch is shared out among the processes first, so passes that fit other processes may not fit these.
    if config.student.processes != present.student.processes:
        return config
    settings, others = (each.model_dump(mode="json") for each in (config, present))
    for place, (stage, other) in enumerate(zip(settings["stages"], others["stages"], strict=False)):
        if _without_memory(stage) == _without_memory(other):
            settings["stages"][place] = other
    return Config.model_validate(settings)


def _without_memory(stage: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in stage.items() if name not in OF_MEMORY}
