"""Reading JSON out of what models write around it."""

import pytest
from pydantic import BaseModel, ValidationError

from tutelage.structured import PROBLEM_LENGTH, describe, read, response_format


class Inner(BaseModel):
    name: str


class Plan(BaseModel):
    goal: str
    steps: list[int] = []
    inner: Inner | None = None


class Loose(BaseModel):
    values: dict[str, str]


@pytest.mark.parametrize(
    "text",
    [
        '{"goal": "g", "steps": [1]}',
        'Sure! Here it is:\n```json\n{"goal": "g", "steps": [1]}\n```\nAnything else?',
        '```\n{"goal": "g",\n "steps": [1]}',
        'I use {braces} and {"a": 1} often.\n{"goal": "g", "steps": [1]} {"goal": "second"}',
        '{"goal": "g", "steps": [1]}}}',
        '{{"goal": "g", "steps": [1]}',
        "{" * 5 + ' {"goal": "g", "steps": [1]}',
    ],
)
def test_the_first_object_that_fits_is_found(text: str) -> None:
    assert read(text, Plan) == Plan(goal="g", steps=[1])


@pytest.mark.parametrize(
    "text", ["", "no idea", '{"goal": ', "[1]", '{"a": {"goal": "inside another"}}', '{"x":' * 5000]
)
def test_nothing_else_is_taken_for_one(text: str) -> None:
    with pytest.raises(ValidationError):
        read(text, Plan)


def test_the_problem_is_that_of_the_first_object_and_short() -> None:
    with pytest.raises(ValidationError) as failed:
        read('{"goal": 1, "steps": ["a", "b", "c", "d", "e", "f", "g"]} and {"goal": 2}', Plan)
    told = describe(failed.value)
    assert told.startswith("goal: ")
    assert "steps.3" in told
    assert "steps.5" not in told
    with pytest.raises(ValidationError) as failed:
        Plan.model_validate({"goal": "g", "steps": {"x" * 1000: 1}})
    assert len(describe(failed.value)) <= PROBLEM_LENGTH


def test_a_schema_with_free_mappings_is_left_to_the_prompt() -> None:
    """Anthropic's own translation would forbid every key of the mapping."""
    assert response_format(Loose) is None
    native = response_format(Plan)
    assert native is not None
    assert native["json_schema"]["schema"]["required"] == ["goal"]
