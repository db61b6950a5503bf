"""What a run of annotation depends on: it does not go on under other settings."""

from typing import Any

from tutelage.config import Config
from tutelage.errors import ConfigError
from tutelage.record import Record

TEACHER = {"model", "designer", "temperature", "max_tokens", "tools", "first_thought"}
"""The judge is not among them: what was done may be judged again by another one."""
ANNOTATE = {"personas", "explore_steps", "per_exploration"}


def same_settings(record: Record, run: str, config: Config, count: int, *, begun: bool) -> None:
    """Keep the settings of a run, or see that they are still the same.

    Args:
        begun: whether anything came of it so far; if not, it may begin anew under others.

    Raises:
        ConfigError: they are not; says what was and what is.
    """
    settings: dict[str, Any] = {
        "tasks": count,
        "environments": [item.model_dump(mode="json") for item in config.environments],
        "teacher": config.teacher.model_dump(mode="json", include=TEACHER),
        "annotate": config.annotate.model_dump(mode="json", include=ANNOTATE),
        "act": config.act.model_dump(mode="json"),
    }
    before = record.get("annotation-run", run) or settings
    was, now = _flat(before), _flat(settings)
    changed = [f"{key}: {was.get(key)}, now {value}" for key, value in now.items() if was.get(key) != value]
    if changed and begun:
        raise ConfigError(
            f"the annotation {run!r} was begun with other settings ({'; '.join(changed)}); "
            "finish it with those, or give this one a --name"
        )
    record.put("annotation-run", run, settings)


def _flat(settings: dict[str, Any]) -> dict[str, Any]:
    """``{"a": {"b": 1}}`` as ``{"a.b": 1}``."""
    tables = {name: value if isinstance(value, dict) else {"": value} for name, value in settings.items()}
    return {f"{name}.{key}".rstrip("."): value for name, table in tables.items() for key, value in table.items()}
