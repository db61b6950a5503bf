"""That on-policy distillation teaches: a student that solves nothing yet learns from one that has learned the task."""

from contextlib import closing
from pathlib import Path

from tutelage.agents.graph import run_episodes
from tutelage.agents.llm_policy import LLMPolicy
from tutelage.config import Config
from tutelage.environments.toy import Toy
from tutelage.llm import LLM
from tutelage.measures import Student
from tutelage.record import Record
from tutelage.stage_config import DistillConfig, SftConfig, StageConfig
from tutelage.training import weights
from tutelage.training.base import StageContext, run_stage, weights_of
from tutelage.training.distill import TEACHER
from tutelage.training.policy import StudentPolicy
from tutelage.types import Policy, Split, Trajectory

FAMILY = ["press"]
CONFIG = Config.model_validate(
    {
        "student": {"weights": "tiny", "dtype": "float32", "max_new_tokens": 16},
        "act": {"max_steps": 2, "width": 24},
    }
)


def play(policy: Policy, split: Split, count: int) -> list[Trajectory]:
    tasks = Toy.tasks(split, FAMILY, count=count)
    return run_episodes(tasks, policy, lambda _: Toy(), act=CONFIG.act, seed=7)


def acting(student: Student, workspace: Path) -> Policy:
    """Greedy, memory off."""
    return StudentPolicy(*weights.load(weights_of(student, workspace)), label=student.label, max_new_tokens=16)


def test_a_student_learns_from_the_one_that_made_its_data(tmp_path: Path) -> None:
    """student@1 learns from the expert; student@2 begins to learn from student@1's episodes, and solves nothing
    yet; student@3 is student@2 distilled from what made its data, which nobody names."""
    with closing(Record.open(tmp_path)) as record:
        base = Student(number=0, stage="base", cycle=0, weights="tiny")
        record.add_student(base)

        def train(stage: StageConfig, start: Student, number: int, shown: list[Trajectory]) -> Student:
            tasks = Toy.tasks(Split.TRAIN, FAMILY, start=1000, count=200)
            context = StageContext(
                record, tmp_path, CONFIG, 1, start, number, tasks, shown, make_environment=lambda _: Toy(), seed=7
            )
            result = run_stage(stage, context)
            made = Student(
                number=number,
                stage=stage.type,
                cycle=1,
                parent=start.id,
                weights=f"students/{number}",
                trajectories=result.trajectories,
            )
            record.add_student(made)
            return made

        demonstrations = play(LLMPolicy(LLM("expert/toy", role="teacher")), Split.TRAIN, 40)
        teacher = train(SftConfig(steps=60, learning_rate=3e-3, warmup=0.1), base, 1, demonstrations)
        shown = [episode for episode in play(acting(teacher, tmp_path), Split.TRAIN, 40) if episode.success]
        for episode in shown:
            record.add_trajectory(episode, key=episode.task.id, cycle=1, arm="demonstrations")
        student = train(SftConfig(steps=32, learning_rate=3e-3, warmup=0.1), base, 2, shown)
        distilled = train(DistillConfig(steps=32, learning_rate=3e-3, alpha=0.0), student, 3, [])
        assert (record.get(TEACHER, "1/3") or {})["teacher"] == "student@1"
        before, after = (
            sum(episode.success for episode in play(acting(which, tmp_path), Split.VALIDATION, 24))
            for which in (student, distilled)
        )
    assert before <= 2
    assert after >= 8
