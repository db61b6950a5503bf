"""Student versions without training, for tests of what is done with them."""

from pathlib import Path
from typing import Any

from tutelage.config import Config
from tutelage.measures import Student
from tutelage.results import GateDoc, save
from tutelage.training import content
from tutelage.workspace import Workspace


def opened(folder: Path, **settings: Any) -> Workspace:
    student = {"weights": "tiny", "dtype": "float32", "max_new_tokens": 8, **settings.pop("student", {})}
    return Workspace(
        Config.model_validate(
            {
                "workspace": folder,
                "environments": [{"name": "toy", "families": ["press"]}],
                "teacher": {"model": "expert/toy"},
                "act": {"max_steps": 2},
                "student": student,
                **settings,
            }
        )
    )


def made(workspace: Workspace, parent: str = "student@0", **changes: Any) -> Student:
    """A student without training: its folder holds one small file."""
    record = workspace.record
    number = len(record.students())
    folder = workspace.folder / "students" / str(number)
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_text(f"weights {number}")
    values = {"stage": "sft", "cycle": number, "weights": f"students/{number}", "parent": record.student(parent).id}
    student = Student.model_validate({"number": number, **values, "files": content.seal(folder), **changes})
    record.add_student(student)
    return student


def promoted(workspace: Workspace, student: Student, incumbent: str) -> None:
    """As the gate does it."""
    workspace.record.promote(student.id, reason="test", evidence={"candidate": student.label})
    decision = {"promoted": True, "reason": "test", "candidate": student.label, "incumbent": incumbent}
    save(workspace.record, GateDoc.model_validate({"cycle": student.number, **decision}))
