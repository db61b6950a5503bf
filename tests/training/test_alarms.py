"""Alarms: what is beyond its threshold for long enough is said, with its numbers, and nothing else is."""

import json

import pytest

from tutelage.stage_config import AlarmsConfig
from tutelage.training.alarms import ALARMS, RULES, Watch

HEALTHY = {
    "loss": 0.1,
    "grad_norm": 1.0,
    "sampled_tokens": 20.0,
    "turns": 2.0,
    "entropy_failed": 0.5,
    "kl": 0.05,
    "gap": 0.3,
    "invalid_rate": 0.1,
    "broken": 0.0,
    "probe": 0.5,
}
ILL = {
    "length": {"sampled_tokens": 64.0},
    "entropy": {"entropy_failed": 0.02},
    "kl": {"kl": 1.5},
    "gap": {"gap": 2.5},
    "invalid": {"invalid_rate": 0.6},
    "probe": {"probe": 0.25},
}


def watch(**settings: object) -> Watch:
    started = Watch(AlarmsConfig.model_validate(settings))
    assert started.look(HEALTHY) is None
    return started


@pytest.mark.parametrize("name", RULES)
def test_each_has_a_threshold_an_action_and_a_reason(name):
    ill = HEALTHY | ILL[name]
    defaults = watch(patience=1)
    alarm = defaults.look(ill)
    assert (alarm.name, alarm.action) == (name, "stop")
    assert any(digit in alarm.why for digit in "0123456789")
    assert list(defaults.suspects) == [name]
    threshold = getattr(AlarmsConfig(), name).threshold
    assert watch(patience=1, **{name: {"threshold": threshold, "action": "off"}}).look(ill) is None
    lenient = {"entropy": 0.01, "invalid": 0.7}.get(name, 9.0)
    assert watch(patience=1, **{name: {"threshold": lenient}}).look(ill) is None
    back = watch(patience=1, **{name: {"threshold": threshold, "action": "restore"}})
    assert back.look(ill).action == "restore"


def test_a_single_batch_is_suspicious_and_no_alarm_but_a_probe_is_one():
    watching = watch()
    assert watching.look(HEALTHY | ILL["kl"]) is None
    assert list(watching.suspects) == ["kl"]
    assert watching.look(HEALTHY) is None
    assert not watching.suspects
    assert watching.look(HEALTHY | ILL["kl"]) is None
    resumed = Watch(AlarmsConfig())
    resumed.load(watching.state())
    assert resumed.look({"loss": 0.1, "kl": 9.0}) is None, "a step without a batch of its own says nothing about it"
    assert resumed.look(HEALTHY | ILL["kl"]).name == "kl"
    assert watching.look(HEALTHY | ILL["probe"]).name == "probe"


def test_a_batch_without_the_figure_ends_the_row():
    watching = watch()
    assert watching.look(HEALTHY | ILL["entropy"]) is None
    assert watching.look({name: value for name, value in HEALTHY.items() if name != "entropy_failed"}) is None
    assert watching.look(HEALTHY | ILL["entropy"]) is None
    assert watching.look(HEALTHY | ILL["entropy"]).name == "entropy"


def played(watching, *batches, tasks=4.0):
    """Which batch (from 1) of these successes raises an alarm; 0: none."""
    for number, success in enumerate(batches, start=1):
        if watching.look({"broken": 0.0, "success": success, "tasks": tasks}):
            return number
    return 0


def test_a_student_that_solves_nothing_any_more_is_noticed():
    """The rates of a run that learnt too fast: 25 % for a while, then nothing."""
    weak = [0.25, 0.31, 0.19, 0.25, 0.38, 0.25]
    watching = watch()
    assert played(watching, *weak) == 0
    assert played(watching, 0.0) == 0
    assert "success" in watching.suspects, "so these weights do not count as good"
    resumed = Watch(AlarmsConfig())
    resumed.load(json.loads(json.dumps(watching.state())))
    noticed = played(resumed, *[0.0] * 12)
    assert 2 < noticed < 12
    alarm = resumed.look({"broken": 0.0, "success": 0.0, "tasks": 4.0})
    assert (alarm.name, alarm.action) == ("success", "stop")
    assert "0% of the episodes of the last" in alarm.why
    assert "28% in the best 4 in a row" in alarm.why
    resumed.calm()
    assert played(resumed, *[0.0] * 4) == 0, "other weights"
    off = watch(success={"threshold": 0.5, "action": "off"})
    assert played(off, *weak, *[0.0] * 20) == 0
    assert played(watch(), *weak, *[0.0] * 20, tasks=0.0) == 0, "with memory: another success"


@pytest.mark.parametrize(
    ("window", "batches"),
    [
        (4, [1.0, 0.0] * 20),
        (8, ([1.0] * 4 + [0.0] * 4) * 5),
        (4, [0.9, 0.8, 0.9, 0.9] + [0.6, 0.5, 0.6, 0.5] * 6),
        (4, [0.5, 0.25, 0.0, 0.25, 0.0, 0.0, 0.25, 0.0, 0.25, 0.0]),
        (4, [0.0] * 30),
    ],
)
def test_families_that_take_turns_and_small_losses_are_no_decline(window, batches):
    assert played(Watch(AlarmsConfig(), window), *batches) == 0


def test_other_weights_begin_anew():
    watching = watch()
    watching.look(HEALTHY | ILL["length"])
    watching.calm()
    assert watching.look(HEALTHY | ILL["length"]) is None


@pytest.mark.parametrize(
    ("now", "name"),
    [
        ({"loss": float("nan")}, "loss_not_finite"),
        ({"loss": 1.0, "grad_norm": float("inf")}, "loss_not_finite"),
        ({"loss": 1.0, "broken": 1.0}, "all_episodes_broken"),
    ],
)
def test_some_stop_at_once_whatever_the_settings(now, name):
    off = {rule: {"threshold": 0.0, "action": "off"} for rule in ALARMS}
    assert watch(patience=9, **off).look(now).name == name


def test_stopping_comes_before_going_back():
    back = {"threshold": 1.0, "action": "restore"}
    assert watch(patience=1, kl=back).look(HEALTHY | ILL["kl"] | ILL["gap"]).name == "gap"


@pytest.mark.parametrize(
    "now",
    [
        {"loss": -3.0, "invalid_rate": 0.4},
        {"entropy_failed": 0.06},
        {"sampled_tokens": 59.0},
        {"sampled_tokens": 7.0},
        {"turns": 0.0, "sampled_tokens": 0.0},
        {"probe": 0.36},
        {"probe": 0.9},
    ],
)
def test_what_healthy_runs_show_raises_nothing(now):
    watching = watch(patience=1)
    assert watching.look(HEALTHY | now) is None
    assert not watching.suspects


def test_a_student_that_began_badly_is_not_blamed_for_it():
    started = Watch(AlarmsConfig(patience=1))
    assert started.look({"broken": 0.0, "invalid_rate": 0.9}) is None
    assert started.look({"broken": 0.0, "invalid_rate": 1.0}) is None
