"""What a run of the learning benchmark compares: a TOML file, checked when it is read."""

import tomllib
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, field_validator, model_validator

from tutelage.config import Config, EnvironmentConfig
from tutelage.environments.suite import Suite
from tutelage.errors import ConfigError
from tutelage.section import Section
from tutelage.stage_config import RolloutStageConfig, SftConfig, Stage


class World(Section):
    """Environments that students are trained and measured in."""

    config: dict[str, Any]
    """Settings as in any configuration file, without `stages`; `workspace` and `seed` are set by the run."""
    unseen: tuple[EnvironmentConfig, ...] = ()
    """Families that no training task is of; students are measured on them too."""

    @field_validator("config")
    @classmethod
    def _complete(cls, config: dict[str, Any]) -> dict[str, Any]:
        if given := {"stages", "workspace", "seed"} & config.keys():
            raise ValueError(f"{', '.join(sorted(given))}: the plan sets this itself")
        Config.model_validate(config)
        return config

    @model_validator(mode="after")
    def _apart(self) -> "World":
        both = sorted(set(self.suite.families) & set(self.suite_unseen.families))
        if both:
            raise ValueError(f"{', '.join(both)}: trained on, so not unseen")
        return self

    @property
    def suite(self) -> Suite:
        return _suite(Config.model_validate(self.config).environments)

    @property
    def suite_unseen(self) -> Suite:
        return _suite(self.unseen)

    def settings(self, folder: Path, seed: int, first: SftConfig) -> Config:
        """The configuration of one seed's workspace."""
        return Config.model_validate({**self.config, "workspace": folder, "seed": seed, "stages": [first]})


class Plan(Section):
    """From one student after `sft`, each arm trains on for the same time; all are then measured on the same tasks."""

    seeds: int = Field(3, ge=1)
    """Independent runs: other training tasks, other order, other held-out tasks."""
    seconds: float = Field(gt=0)
    """Training time of each arm after `sft`, as `StageConfig.seconds` counts it; stages of one arm share it evenly."""
    sft: SftConfig
    arms: dict[str, tuple[Stage, ...]]
    control: str
    """The arm that goes on with fine-tuning; the others are compared with it."""
    worlds: dict[str, World] = Field(min_length=1)
    episodes: int = Field(72, ge=1)
    """Held-out tasks of the trained families, per student and seed; those seen in training are then left out."""
    episodes_unseen: int = Field(24, ge=0)
    """Held-out tasks of unseen families."""
    confidence: float = Field(0.95, gt=0.5, lt=1)

    @model_validator(mode="after")
    def _fair(self) -> "Plan":
        control = self.arms.get(self.control)
        if not control or any(isinstance(stage, RolloutStageConfig) for stage in control):
            raise ValueError(f"control = {self.control!r} must be an arm of sft stages alone")
        for name, stages in self.arms.items():
            for stage in stages:
                if not stages or stage.seconds:
                    raise ValueError(f"arms.{name}: its time is the plan's; set no seconds")
                if stage.warmup or getattr(stage, "schedule", "constant") != "constant":
                    raise ValueError(
                        f'arms.{name}: {stage.type} ends by time, so set warmup = 0 and, for sft, schedule = "constant"'
                    )
        return self

    def stages(self, arm: str) -> list[Stage]:
        """The stages of an arm, each with its share of the time."""
        stages = self.arms[arm]
        return [stage.model_copy(update={"seconds": self.seconds / len(stages)}) for stage in stages]


def read(path: Path) -> Plan:
    """The plan in a file.

    Raises:
        ConfigError: it cannot be read or makes no sense.
        UnknownName: an environment does not exist.
    """
    try:
        return Plan.model_validate(tomllib.loads(path.read_text()))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"cannot read plan {path}: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def _suite(environments: tuple[EnvironmentConfig, ...]) -> Suite:
    return Suite.open([(item.name, item.families, item.settings) for item in environments])
