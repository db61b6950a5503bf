"""The estimate of memory against what models and a real run really take."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from peft import LoraConfig, get_peft_model

from tutelage.config import Config
from tutelage.errors import ConfigError
from tutelage.stage_config import DistillConfig
from tutelage.training import free_memory, need, weights
from tutelage.types import Cause, Diagnosis, Ending, Split, Step, Task, Tokens, Trajectory

LONG = 'text "some words on a page"\n' * 20

MEASURED = """
import json, sys
from pathlib import Path
from tutelage.config import Config
from tutelage.measures import Student
from tutelage.record import Record
from tutelage.training import need
from tutelage.training.base import StageContext, run_stage
from tutelage.types import Trajectory

folder = Path(sys.argv[1])
config = Config.model_validate_json((folder / "config.json").read_text())
episodes = [Trajectory.model_validate_json(line) for line in (folder / "episodes.jsonl").read_text().splitlines()]
start = Student(number=0, stage="base", cycle=0, weights="tiny")
context = StageContext(
    Record.open(folder), folder, config, cycle=1, student=start, number=1, tasks=[], trajectories=episodes
)
run_stage(config.stages[0], context)
status = Path("/proc/self/status").read_text().splitlines()
peak = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
print(json.dumps([peak, need.needs(config, "tiny", episodes)[0].total]))
"""


def config(**changes: object) -> Config:
    stages = [{"type": "sft", "steps": 2, "batch_size": 36}, {"type": "sdpo", "batch_size": 8}]
    student = {"weights": "tiny", "dtype": "float32", "max_new_tokens": 30, "max_length": 2000}
    return Config.model_validate({"student": {**student, **changes}, "act": {"max_steps": 4}, "stages": stages})


def episode(turns: int = 2, *, tokens: int = 0) -> Trajectory:
    sampled = Tokens(prompt=(5,) * 100, sampled=(7,) * tokens, logprobs=(0.0,) * tokens) if tokens else None
    diagnosis, reply = Diagnosis(cause=Cause.PROGRESS), 'click("r1")'
    step = Step(observation=LONG, reply=reply, action=reply, after="", diagnosis=diagnosis, tokens=sampled)
    task = Task(environment="toy", family="press", seed=0, split=Split.TRAIN)
    return Trajectory(
        task=task, goal="go", system="s", policy="p", memory=False, steps=(step,) * turns, ending=Ending.SOLVED
    )


def test_models_are_counted_without_being_loaded() -> None:
    model, _ = weights.load("tiny")
    shape = need.shape_of("tiny")
    assert shape.parameters == sum(parameter.numel() for parameter in model.parameters())
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    assert shape.adapter(4) == sum(item.numel() for item in adapted.parameters() if item.requires_grad)


def test_lengths_are_those_of_the_longest_known_episode() -> None:
    settings = config()
    assert need.lengths_of([], settings, "tiny", acting=True) == need.Lengths(2000, 4 * 30)
    taught = need.lengths_of([episode(1), episode(2)], settings, "tiny", acting=False)
    acting = need.lengths_of([episode(1), episode(2)], settings, "tiny", acting=True)
    assert acting.sampled == 2 * 30
    assert acting.episode - acting.sampled == taught.episode - taught.sampled
    own = need.lengths_of([episode(2), episode(1, tokens=9)], settings, "tiny", acting=True)
    assert own.sampled == 9


def test_what_takes_less_is_estimated_to_take_less() -> None:
    shape, lengths = need.shape_of("tiny"), need.Lengths(1000, 100)

    def total(place: int, stage: dict[str, object] = {}, **student: object) -> int:  # noqa: B006
        settings = config(**student)
        changed = settings.stages[place].model_copy(update=stage)
        return need.estimate(changed, settings, shape, lengths).total

    for place in (0, 1):
        assert total(place, {"micro_batch_size": 4}) < total(place)
        assert total(place, {"gradient_checkpointing": True}) < total(place)
        assert total(place, method="lora") < total(place)
        assert total(place, method="lora", quantize="4bit") < total(place, method="lora")
        assert total(place) < total(place, processes=2)
    assert total(1, {"teacher": "live"}) == total(1) - 4 * shape.parameters
    taught = DistillConfig(teacher="tiny")
    settings = config(dtype="bfloat16")
    assert need.estimate(taught, settings, shape, lengths).parts["teacher"] == 2 * shape.parameters


def test_a_stage_that_does_not_fit_is_refused_with_what_would(monkeypatch: pytest.MonkeyPatch) -> None:
    settings, episodes = config(), [episode()]
    enough = need.needs(settings, "tiny", episodes)[0].total
    monkeypatch.setattr(need, "available", lambda: enough)
    need.check(settings, "tiny", episodes, [0])
    monkeypatch.setattr(need, "available", lambda: enough - 1)
    with pytest.raises(ConfigError, match=r"stages.0 \(sft\) needs about .* set stages.0.micro_batch_size = 18 "):
        need.check(settings, "tiny", episodes, [0])
    stages = list(settings.stages)
    stages[0] = stages[0].model_copy(update={"micro_batch_size": 18})
    need.check(settings.model_copy(update={"stages": tuple(stages)}), "tiny", episodes, [0])
    monkeypatch.setattr(need, "available", lambda: 1000)
    with pytest.raises(ConfigError, match="take a smaller student"):
        need.check(settings, "tiny", episodes, [1])
    with pytest.raises(ConfigError, match=r"stages.1 \(sdpo\) needs at least"):
        need.check(settings, "tiny", [], [1])


def test_what_is_suggested_can_be_set() -> None:
    settings = config(processes=2)
    offered = dict(need.smaller(settings, 0))
    for changed in offered.values():
        Config.model_validate(changed.model_dump())
    sizes = [
        int(change.rpartition(" ")[2])
        for change in offered
        if change.startswith("stages.0.micro") and "with" not in change
    ]
    assert sizes == [9, 6, 3, 2, 1], "of a process's share of 18"
    assert any("lora" in change for change in offered)
    assert not any("lora" in change.lower() for change, _ in need.smaller(settings, 0, begun=True))


def test_the_limits_of_containers_count(tmp_path: Path) -> None:
    assert free_memory._container(tmp_path) > 2**60
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("600\n")
    assert free_memory._container(tmp_path) > 2**60
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.stat").write_text("anon 400\ninactive_file 150\n")
    assert free_memory._container(tmp_path) == 1000 - 600 + 150
    old = tmp_path / "old" / "memory"
    old.mkdir(parents=True)
    (old / "memory.limit_in_bytes").write_text("500")
    (old / "memory.usage_in_bytes").write_text("200")
    assert free_memory._container(tmp_path / "old") == 300


def test_a_limit_on_the_address_space_counts() -> None:
    script = (
        "import psutil, resource; from tutelage.training import free_memory as f;"
        "used = psutil.Process().memory_info().vms;"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, used + 2**28)); print(f.free())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert 0 < int(done.stdout) <= 2**28


def test_the_estimate_is_near_the_peak_of_a_real_run(tmp_path: Path) -> None:
    """Fine-tuning of the tiny student; larger models and other stages were measured once, see docs/training.md."""
    (tmp_path / "config.json").write_text(config().model_dump_json())
    (tmp_path / "episodes.jsonl").write_text("".join(episode(4).model_dump_json() + "\n" for _ in range(72)))
    command = [sys.executable, "-c", MEASURED, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    peak, estimated = json.loads(done.stdout.splitlines()[-1])
    assert 0.75 * peak < estimated < 1.25 * peak, (peak, estimated)
