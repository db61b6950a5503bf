"""The statement that the toy environment makes: its student learns it by ordinary fine-tuning."""

from contextlib import closing
from pathlib import Path

from tutelage.agents.graph import run_episodes
from tutelage.agents.llm_policy import LLMPolicy
from tutelage.config import Config, load_config
from tutelage.environments.toy import Toy
from tutelage.evaluate import Arm, evaluate_arm, seen_pairs
from tutelage.llm import LLM
from tutelage.measures import Student
from tutelage.record import Record
from tutelage.training import weights
from tutelage.training.base import StageContext, run_stage
from tutelage.training.policy import StudentPolicy
from tutelage.types import Split

CONFIG = Path(__file__).parents[2] / "configs" / "toy.toml"


def test_tiny_learns_toy_by_fine_tuning(tmp_path: Path) -> None:
    """With the demonstrations, steps and learning rate of the toy configuration, judged on pages not trained on."""
    config = load_config(CONFIG)
    teacher = LLMPolicy(LLM("expert/toy", role="teacher"))
    demonstrations = run_episodes(
        Toy.tasks(Split.TRAIN, count=config.collect.demonstrations),
        teacher,
        lambda _: Toy(),
        act=config.act,
        seed=config.seed,
    )
    assert all(episode.success for episode in demonstrations)
    with closing(Record.open(tmp_path)) as record:
        for episode in demonstrations:
            record.add_trajectory(episode, key=f"demonstration/{episode.task.id}", cycle=1, arm="demonstration")
        base = Student(number=0, stage="base", cycle=0, weights="tiny")
        context = StageContext(record, tmp_path, config, 1, base, 1, (), demonstrations, seed=config.seed)
        stage = next(stage for stage in config.stages if stage.type == "sft")
        trained = run_stage(stage, context).folder
        before, after = (measure(record, config, name) for name in ("tiny", str(trained)))
    assert before.rate.rate <= 0.3
    assert after.rate.rate >= 0.6, {family: rate.rate for family, rate in after.by_family.items()}
    assert after.rate.episodes >= 40, "nearly all held-out pages are new"


def measure(record: Record, config: Config, name: str) -> Arm:
    """Greedy, memory off, on validation tasks whose goal and page do not occur in the demonstrations."""
    policy = StudentPolicy(*weights.load(name), label=name, max_new_tokens=config.student.max_new_tokens)
    return evaluate_arm(
        record,
        Toy.tasks(Split.VALIDATION, count=12),
        policy,
        lambda _: Toy(),
        act=config.act,
        key_prefix=f"eval/{name}/off/validation",
        cycle=1,
        student_label=name,
        split=Split.VALIDATION,
        seen=seen_pairs(record),
    )
