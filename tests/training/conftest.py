"""A stage's context on the toy environment with the `tiny` student (random weights), in float32."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_students

from tutelage.config import Config
from tutelage.environments.toy import Toy
from tutelage.experience import Recaller
from tutelage.measures import Student
from tutelage.record import Record
from tutelage.training.base import StageContext
from tutelage.types import Split


@pytest.fixture(scope="module")
def varied() -> tuple[Any, Any]:
    """The `tiny` model with weights that make varied replies of varied lengths, and its tokenizer."""
    model, tokenizer = tiny_students.varied(0, std=0.16)
    return model, tokenizer


@pytest.fixture
def stage_context(tmp_path: Path) -> Iterator[Callable[..., StageContext]]:
    """``stage_context(folder="a", memory=None, **student)`` makes one in a workspace of its own."""
    records: list[Record] = []

    def make(folder: str = "a", memory: Recaller | None = None, **student: Any) -> StageContext:
        workspace = tmp_path / folder
        records.append(Record.open(workspace))
        settings = {"weights": "tiny", "dtype": "float32", "max_new_tokens": 6, **student}
        return StageContext(
            record=records[-1],
            workspace=workspace,
            config=Config.model_validate({"student": settings, "act": {"max_steps": 3}}),
            cycle=1,
            student=Student(number=0, stage="base", cycle=0, weights="tiny"),
            number=1,
            tasks=Toy.tasks(Split.TRAIN, count=2),
            trajectories=[],
            make_environment=lambda _: Toy(),
            memory=memory,
            seed=5,
        )

    yield make
    for record in records:
        record.close()
