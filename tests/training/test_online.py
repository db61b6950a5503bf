"""Brakes: a stage ends with, or goes back to, the last good weights; what is not finite never reaches any."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tutelage.config import Config
from tutelage.environments.toy import Toy
from tutelage.results import AlarmDoc, load
from tutelage.stage_config import GrpoConfig
from tutelage.training import brakes, checkpoints, grpo, probe, rollout, watching, weights
from tutelage.training.base import StageContext, StageResult, run_stage, time_is_up
from tutelage.training.policy import StudentPolicy, generation_copy
from tutelage.training.rollout import Rollouts
from tutelage.types import Ending, Split, Trajectory

QUIET: dict[str, Any] = {name: {"threshold": 0, "action": "off"} for name in ("length", "entropy", "gap", "invalid")}


def stage_of(steps: int, **alarms: Any) -> GrpoConfig:
    kl = {"threshold": 1.0, "action": "stop"}
    settings = {
        "steps": steps,
        "batch_size": 4,
        "group_size": 2,
        "temperature": 0.9,
        "learning_rate": 1e-3,
        "warmup": 0,
    }
    return GrpoConfig.model_validate(
        {**settings, "alarms": {**QUIET, "kl": kl, "patience": 1, "probe_tasks": 0, **alarms}}
    )


@pytest.fixture(autouse=True)
def rewards_vary(monkeypatch: pytest.MonkeyPatch) -> None:
    """A random student earns nothing that GRPO could tell apart."""
    monkeypatch.setattr(rollout, "shaped_reward", lambda item, stage: sum(item.steps[0].tokens.sampled) % 997 / 200)


@pytest.fixture
def drifting(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Has the figure of drift be these values, one per step."""

    def set_to(*values: float) -> None:
        given = iter(values)
        monkeypatch.setattr(watching, "drift", lambda *_: next(given))

    return set_to


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The trainer of the stage that runs, and all of its state after each step and after going back."""
    noted: dict[str, Any] = {}
    make, step_end, go_back = grpo.make_trainer, watching.Figures.on_step_end, brakes.Brakes.go_back

    def state() -> dict[str, Any]:
        taken = checkpoints.training(noted["trainer"])
        return {
            "weights": {name: tensor.clone() for name, tensor in taken["weights"].items()},
            "moments": [item["exp_avg"].clone() for item in taken["optimizer"]["state"].values()],
        }

    def made(*args: Any) -> Any:
        noted["trainer"] = make(*args)
        return noted["trainer"]

    def ended(self: Any, args: Any, at: Any, control: Any, **more: Any) -> None:
        noted[at.global_step] = state()
        step_end(self, args, at, control, **more)

    def went_back(self: Any, trainer: Any) -> None:
        go_back(self, trainer)
        noted["back"] = state()

    monkeypatch.setattr(grpo, "make_trainer", made)
    monkeypatch.setattr(watching.Figures, "on_step_end", ended)
    monkeypatch.setattr(brakes.Brakes, "go_back", went_back)
    return noted


def same(one: dict[str, Any], other: dict[str, Any], *, moments: bool = True) -> bool:
    equal = all(torch.equal(tensor, other["weights"][name]) for name, tensor in one["weights"].items())
    pairs = zip(one["moments"], other["moments"], strict=True)
    return equal and (not moments or all(torch.equal(a, b) for a, b in pairs))


def run(context: StageContext, stage: GrpoConfig) -> tuple[StageResult, list[AlarmDoc]]:
    return run_stage(stage, context), load(context.record, AlarmDoc)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_loss_that_is_not_a_number_reaches_no_weights(stage_context, monkeypatch, seen, method) -> None:
    compute = grpo.EpisodeGRPOTrainer.compute_loss

    def breaks_at_step_3(self: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        loss = compute(self, *args, **kwargs)
        return loss * float("nan") if self.state.global_step == 2 else loss

    monkeypatch.setattr(grpo.EpisodeGRPOTrainer, "compute_loss", breaks_at_step_3)
    context = stage_context(method=method)
    result, alarms = run(context, stage_of(5))
    assert len(result.metrics) == 3
    assert result.metrics[-1][1]["alarm/loss_not_finite"] == 1.0
    assert same(seen[3], seen[2]), "neither weights nor optimiser moved"
    assert [alarm.text for alarm in alarms] == ["grpo step 3: loss is nan: stopped with the weights after step 1"]
    assert same(seen["back"], seen[1], moments=False)
    saved, _ = weights.load(str(result.folder))
    assert weights.digest(saved) == result.digest != weights.digest(weights.load("tiny")[0])
    assert len(result.trajectories) == 4, "of the first batch, whose loss is in the weights"
    assert len(context.record.trajectories(arm="grpo")) == 12, "all are kept"


def test_a_stage_ends_in_its_time(stage_context, monkeypatch) -> None:
    """Each step takes a second, as the clock here has it, and the third ends nearest to three seconds."""
    monkeypatch.setattr(watching, "time", SimpleNamespace(monotonic=partial(next, count(0.0))))
    stage = stage_of(9, probe_tasks=2, probe_every=8).model_copy(update={"seconds": 3.1})
    context = stage_context()
    result, alarms = run(context, stage)
    assert [values["step_seconds"] for step, values in result.metrics if step] == [1.0] * 3
    assert "probe" in result.metrics[-1][1], "the last step's, as always"
    assert not alarms
    assert len(result.trajectories) == 3 * stage.batch_size == len(context.record.trajectories(arm="grpo"))


@pytest.mark.parametrize(
    ("seconds", "taken", "over"),
    [(0.0, [9.0], False), (5.0, [], False), (5.0, [2.0, 1.9], False), (5.0, [2.0, 2.1], True), (1.0, [60.0], True)],
)
def test_time_is_up_after_the_step_that_ends_nearest(seconds, taken, over) -> None:
    assert time_is_up(GrpoConfig(seconds=seconds), taken) is over


def test_without_good_weights_it_ends_with_those_it_began_with(stage_context, drifting) -> None:
    drifting(0.0, 1.5)
    result, alarms = run(stage_context(), stage_of(5))
    assert result.digest == weights.digest(weights.load("tiny")[0])
    assert result.trajectories == ()
    assert [alarm.text for alarm in alarms] == [
        "grpo step 2: KL 1.5 to the starting weights is above 1: stopped with the starting weights"
    ]


def test_goes_back_and_on_and_stops_when_it_has_done_so_too_often(stage_context, drifting, seen) -> None:
    drifting(0.0, 0.0, 1.5, 0.0, 0.0, 2.5, 3.5)
    context = stage_context()
    result, alarms = run(context, stage_of(9, kl={"threshold": 1.0, "action": "restore"}))
    assert [alarm.text.rpartition(": ")[2] for alarm in alarms] == [
        "went back to the weights after step 1",
        "went back to the weights after step 4",
        "stopped with the weights after step 4",
    ]
    assert same(seen["back"], seen[4])
    assert not same(seen[6], seen[4])
    assert len(result.metrics) == 7
    assert len(result.trajectories) == 2 * 4, "batches 1 and 4"
    tasks = [item.task.seed for item in context.record.trajectories(arm="grpo")]
    assert len(tasks) == 7 * 4, "it went on with the next tasks"


def test_killed_after_going_back_within_iterations_it_goes_on_with_the_same_tasks(stage_context, drifting) -> None:
    """Back at step 3, the first of two on its batch: the second then has another batch of the same tasks."""
    stage = stage_of(8, kl={"threshold": 1.0, "action": "restore"})
    stage = stage.model_copy(update={"iterations": 2, "group_size": 4, "checkpoint_every": 2})
    context = replace(stage_context(), tasks=Toy.tasks(Split.TRAIN, count=9))
    drifting(0.0, 1.5, 0.0, 0.0, 0.0)

    def die(what: str, done: int, total: int) -> None:
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(replace(context, progress=die), stage)
    _, alarms = run(context, stage)
    assert [alarm.step for alarm in alarms] == [3]
    batches = [item.task for item in context.record.trajectories(arm="grpo")][::4]
    assert batches == [context.tasks[place] for place in (0, 1, 1, 2, 3)]


def test_what_a_probe_proves_is_good_and_what_fails_one_is_not(stage_context, monkeypatch, drifting, seen) -> None:
    success = iter((0.5, 0.5, 0.5, 0.25))
    monkeypatch.setattr(watching, "probe", lambda *_: next(success))
    drifting(*[0.0] * 9)
    stage = stage_of(9, probe_tasks=4, probe_every=2)
    result, alarms = run(stage_context(), stage)
    assert result.metrics[0] == (0, {"probe": 0.5})
    assert [values["probe"] for step, values in result.metrics if step and "probe" in values] == [0.5, 0.5, 0.25]
    assert [alarm.good for alarm in alarms] == [4]
    assert "25% of the probe tasks are solved, after 50% at the start" in alarms[0].text
    assert same(seen["back"], seen[4], moments=False)


def test_probe_tasks_are_of_the_same_families_and_never_trained_on(stage_context, monkeypatch) -> None:
    context = stage_context()
    tasks = probe.probe_tasks(context, 5)
    families = list(dict.fromkeys(task.family for task in context.tasks))
    assert [task.family for task in tasks] == [families[place % len(families)] for place in range(5)]
    assert all(task.split is Split.TRAIN for task in tasks)
    assert not {task.id for task in tasks} & {task.id for task in context.tasks}
    model, tokenizer = weights.load("tiny")
    policy = StudentPolicy(model, tokenizer, label="student@0+probe", max_new_tokens=6)
    assert probe.probe(tasks, context, policy) == 0.0
    played = probe.run_episodes

    def solved_or_broken(*args: Any, **options: Any) -> list[Trajectory]:
        endings = [Ending.SOLVED] * 2 + [Ending.ENVIRONMENT_ERROR] * 3
        found = zip(played(*args, **options), endings, strict=True)
        return [item.model_copy(update={"ending": ending}) for item, ending in found]

    monkeypatch.setattr(probe, "run_episodes", solved_or_broken)
    assert probe.probe(tasks, context, policy) == 1.0
    monkeypatch.setattr(probe, "run_episodes", lambda *args, **options: solved_or_broken(*args, **options)[2:])
    assert probe.probe(tasks, context, policy) is None


@pytest.mark.parametrize("method", ["full", "lora"])
def test_drift_is_the_mean_log_ratio_of_the_sampled_tokens(stage_context, method) -> None:
    stage, context = stage_of(1), stage_context(method=method)
    model, tokenizer = weights.load("tiny")
    start = weights.load("tiny")[0]
    torch.manual_seed(0)
    if method == "lora":
        from peft import get_peft_model

        from tutelage.training.base import lora

        model = get_peft_model(model, lora(context))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.02 * torch.randn_like(parameter)
    tasks = [task for task in context.tasks[:2] for _ in range(2)]
    episodes = Rollouts(stage, context, tokenizer)(tasks, model)
    episodes[0] = replace(episodes[0], broken=True)
    found = probe.drift(episodes, 2, context, model, stage.temperature)
    now, expected = generation_copy(model, torch.float32), []
    for episode in (episodes[1], episodes[2]):
        ids: list[int] = []
        for turn in episode.turns:
            ids += turn.prompt
            at = range(len(ids) - 1, len(ids) - 1 + len(turn.sampled))
            ids += turn.sampled
            for place in at:
                p, p0 = (
                    (m(torch.tensor([ids])).logits[0, place] / stage.temperature).log_softmax(-1)[ids[place + 1]].item()
                    for m in (now, start)
                )
                expected.append(p - p0)
    assert found == pytest.approx(sum(expected) / len(expected), abs=1e-4)
    assert abs(found) > 0.01


class Scarce(Toy):
    """One task of each family."""

    @classmethod
    def seeds(cls, split: Split, family: str) -> Sequence[int]:
        return super().seeds(split, family)[-1:]


def test_there_is_no_probe_where_too_few_tasks_are_left_for_one(stage_context) -> None:
    context = replace(stage_context(), make_environment=lambda _: Scarce())
    left = len({task.family for task in context.tasks})
    assert 0 < left < probe.FEWEST
    assert len(probe.probe_tasks(context, left)) == left, "as few as were asked for"
    assert probe.probe_tasks(context, 16) == []


def test_settings_of_alarms_come_from_the_config() -> None:
    stage = {"type": "grpo", "alarms": {"kl": {"threshold": 2, "action": "restore"}, "probe_tasks": 8}}
    found = Config.model_validate({"stages": [stage]}).stages[0]
    assert isinstance(found, GrpoConfig)
    assert (found.alarms.kl.action, found.alarms.length.action) == ("restore", "stop")
