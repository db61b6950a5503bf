"""What the environments share whose tasks can be designed freely: the form of a design, and one line on what is
wrong with it."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from tutelage.designs import DESIGNED, EXPLORED, Design
from tutelage.environments.base import Environment
from tutelage.errors import DesignRefused
from tutelage.types import Split, Task

GOAL_LENGTH = 2000
"""Characters of a goal."""
DESIGN_LENGTH = 20_000
"""Characters of a whole design as JSON."""
MESSAGE_LENGTH = 300

Form = TypeVar("Form", bound=BaseModel)


def check_form(environment: type[Environment], design: Design) -> None:
    """Whether task, base and goal of a design are in form; its end is for the environment to read.

    Raises:
        DesignRefused: they are not.
    """
    _check_size(design)
    if not design.goal.strip() or len(design.goal) > GOAL_LENGTH or not plain(design.goal):
        raise refused(f"the goal must be a text of up to {GOAL_LENGTH} plain characters")
    family = EXPLORED if design.end is None else DESIGNED
    if family in environment.families():
        raise refused(f"the {environment.name} environment has a family {family!r} of its own")
    task, base = design.task, design.base
    if (task.environment, task.family, task.split) != (environment.name, family, Split.TRAIN):
        raise refused(f"{task.id} is not the id of a train task {environment.name}/{family}")
    if not _drawn(environment, base):
        raise refused(f"the base {base.id} ({base.split}) is not a train task of the {environment.name} environment")


def parsed(form: type[Form], end: Mapping[str, Any] | None) -> Form:
    """A design's end in its environment's form.

    Raises:
        DesignRefused: it has another form; the message says where.
    """
    if not end:
        raise refused("the end is empty; say what the task has to change or what its answer is")
    try:
        return form.model_validate(dict(end))
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(map(str, ("end", *first["loc"])))
        raise refused(f"{place}: {first['msg'].removeprefix('Value error, ')}") from error


def refused(message: str) -> DesignRefused:
    """The refusal in one line that can be kept and shown, whatever it quotes."""
    line = " ".join(message.encode("utf-8", "replace").decode().split())
    return DesignRefused(line if len(line) <= MESSAGE_LENGTH else f"{line[: MESSAGE_LENGTH - 3]}...")


def plain(text: str) -> bool:
    """Whether it holds printable characters and line ends only."""
    return all(character.isprintable() or character == "\n" for character in text)


def _check_size(design: Design) -> None:
    try:
        size = len(design.model_dump_json())
    except (ValueError, RecursionError) as error:  # half characters, or nested without end
        raise refused("the design cannot be written as JSON: strange characters, or nested too deeply") from error
    if size > DESIGN_LENGTH:
        raise refused(f"the design has {size} characters as JSON; at most {DESIGN_LENGTH} are taken")


def _drawn(environment: type[Environment], task: Task) -> bool:
    return (
        task.environment == environment.name
        and task.split is Split.TRAIN
        and task.family in environment.families()
        and task.seed in environment.seeds(Split.TRAIN, task.family)
    )
