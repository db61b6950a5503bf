"""What each kind of job takes."""

import re
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, field_validator

from tutelage.config import CONFIG_FILE, Config, EnvironmentConfig, load_config
from tutelage.errors import ConfigError
from tutelage.section import Section
from tutelage.service_config import JobKind
from tutelage.types import Split

POLICIES = ("teacher", "expert", "oracle", "student")
"""Policies that go by a name alone."""


class Params(Section):
    """What every kind takes."""

    set: tuple[str, ...] = ()
    """Settings other than the workspace's, as ``key.sub=value``."""


class AnnotateParams(Params):
    """Of a job that designs tasks and has them done, judged and filtered."""

    tasks: int = Field(0, ge=0)
    """How many; 0 means `annotate.tasks`."""
    environment: tuple[str, ...] = ()
    """Instead of the configured ones."""


class EvaluateParams(Params):
    """Of a job that measures a policy, as ``tutelage eval`` does."""

    policy: str = "student"
    """As ``tutelage eval`` takes it; the student of a number may be one that is yet to be made."""
    split: Split = Split.VALIDATION
    episodes: int = Field(4, ge=1)
    """Per task family."""
    memory: bool = False
    family: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()
    """Instead of the configured ones."""

    @field_validator("policy")
    @classmethod
    def _can_be_one(cls, policy: str) -> str:
        if policy in POLICIES or "/" in policy or re.fullmatch(r"student@\d+", policy):
            return policy
        raise ValueError(
            f"unknown policy {policy!r}; known: {', '.join(POLICIES)}, student@N, or a model with its provider"
        )


PARAMS: dict[JobKind, type[Params]] = {
    JobKind.COLLECT: Params,
    JobKind.ANNOTATE: AnnotateParams,
    JobKind.EXTRACT: Params,
    JobKind.TRAIN: Params,
    JobKind.EVALUATE: EvaluateParams,
    JobKind.CONSOLIDATE: Params,
    JobKind.DISTILL: Params,
}


def params_of(kind: JobKind, given: dict[str, Any]) -> Params:
    """What a job was given, as the class of its kind.

    Raises:
        ConfigError: a name that the kind does not take, or a value that makes no sense.
    """
    try:
        return PARAMS[kind].model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"]) or "params"
        known = ", ".join(PARAMS[kind].model_fields)
        raise ConfigError(f"{kind} job: {name}: {first['msg']} (it takes: {known})") from error


def settings(folder: Path, params: Params) -> Config:
    """The settings a job runs with: those the workspace was last used with, and its own over them.

    Raises:
        ConfigError: there is no workspace in `folder`, or a setting makes no sense.
        UnknownName: an environment that the job is given does not exist.
    """
    kept = folder / CONFIG_FILE
    if not kept.exists():
        raise ConfigError(f"there is no workspace at {folder}; make one with `tutelage run --config FILE`")
    for item in params.set:
        if item.partition("=")[0].strip().split(".")[0] == "workspace":
            raise ConfigError(f"{item!r}: a job works in the workspace that it is queued in")
    found = load_config(kept, list(params.set)).model_copy(update={"workspace": folder})
    if isinstance(params, AnnotateParams | EvaluateParams) and params.environment:
        configured = {item.name: item for item in found.environments}
        for name in params.environment:
            if name not in configured:
                _known(name)
        chosen = tuple(configured.get(name) or EnvironmentConfig(name=name) for name in params.environment)
        found = found.model_copy(update={"environments": chosen})
    return found


def _known(environment: str) -> None:
    from tutelage.environments.base import environment_class  # here, for reading settings wants none of it

    environment_class(environment)
