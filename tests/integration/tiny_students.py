"""Workspaces with students of `tiny` whose replies differ from each other."""

from pathlib import Path
from typing import Any

import torch

from tutelage.config import Config
from tutelage.measures import Student
from tutelage.record import Record
from tutelage.training import content, weights


def varied(seed: int, *, ends: bool = True, std: float = 0.8) -> Any:
    """`tiny` with weights that make varied replies, other ones for each seed, and its tokenizer.

    Args:
        ends: whether replies end by themselves, after varied lengths.
        std: of the weights; with smaller ones, scores of different batches agree more closely.
    """
    model, tokenizer = weights.load("tiny")
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(seed)
        for parameter in model.model.layers.parameters():
            if parameter.ndim == 2:
                parameter.normal_(std=std)  # untrained ones repeat their last token
        model.model.embed_tokens.weight[tokenizer.eos_token_id].normal_(std=0.25 if ends else 0.0)
    return model, tokenizer


def settings(folder: Path, **serve: Any) -> Config:
    """A config of `tiny` in float32 with these settings of ``serve``."""
    return Config.model_validate(
        {
            "workspace": folder,
            "student": {"weights": "tiny", "dtype": "float32"},
            "environments": [{"name": "toy"}],
            "serve": serve,
        }
    )


def add_student(record: Record, folder: Path, number: int, *, broken: bool = False) -> Student:
    """Make the weights of student `number`, whose replies never end, and add it to the record, unpromoted.

    Args:
        broken: its weights are no numbers.
    """
    model, tokenizer = varied(number, ends=False)
    if broken:
        with torch.no_grad():
            model.model.norm.weight.fill_(float("nan"))
    place = folder / "students" / str(number)
    digest = weights.save(model, tokenizer, place)
    student = Student(
        number=number,
        stage="sft",
        cycle=number,
        parent="stu_0",
        weights=f"students/{number}",
        digest=digest,
        files=content.seal(place),
    )
    record.add_student(student)
    return student
