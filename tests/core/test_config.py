"""Configuration: every shipped recipe is valid, and nonsense fails at once with the key in the message."""

from pathlib import Path

import pytest

from tutelage.config import load_config
from tutelage.errors import ConfigError
from tutelage.stage_config import GrpoConfig
from tutelage.workspace import Workspace

CONFIGS = sorted((Path(__file__).resolve().parents[2] / "configs").glob("*.toml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_shipped_configs_are_valid(path: Path, tmp_path: Path) -> None:
    config = load_config(path, [f"workspace={tmp_path}"])
    Workspace(config).close()  # the environment and its families exist


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("act.widht=4", "act.widht"),
        ("act.width=0", "act.width"),
        ("stages=[{type='ppo'}]", "stages.0"),
        ("stages=[{type='grpo', batch_size=6}]", "group_size must divide batch_size"),
        ("stages=[{type='sft', batch_size=8, micro_batch_size=3}]", "micro_batch_size must divide"),
        ("stages=[{type='grpo', with_memory=0.1}]", "less than one episode in a group"),
        ("student.method=qlora", "student.method"),
        ("act.step_timeout=inf", "act.step_timeout"),
        ("jobs.lease=inf", "jobs.lease"),
        ("triggers=[{name='x', every=inf}]", "triggers.0.every"),
        ("nonsense", "key.sub=value"),
        ("seed.sub=1", "seed"),
    ],
)
def test_nonsense_is_refused(override: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named.replace(".", r"\.")):
        load_config(None, ["seed=1", override])


def test_overrides_reach_into_lists_and_take_bare_strings() -> None:
    config = load_config(None, ["stages=[{type='sft'}]", "stages.0.steps=7", "teacher.model=openai/x"])
    assert config.stages[0].steps == 7
    assert config.teacher.model == "openai/x"


def test_an_alarm_is_told_what_changes_and_keeps_the_rest() -> None:
    stages = "stages=[{type='grpo'}]"
    config = load_config(None, [stages, 'stages.0.alarms.kl.action="off"', "stages.0.alarms.gap.threshold=1.5"])
    alarms, defaults = config.stages[0].alarms, GrpoConfig().alarms
    assert (alarms.kl.action, alarms.kl.threshold) == ("off", defaults.kl.threshold)
    assert (alarms.gap.action, alarms.gap.threshold) == (defaults.gap.action, 1.5)
    assert alarms.entropy == defaults.entropy
    with pytest.raises(ConfigError, match=r"alarms\.kl\.level"):
        load_config(None, [stages, "stages.0.alarms.kl.level=1"])


def test_missing_and_broken_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        load_config(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("a = = 1")
    with pytest.raises(ConfigError, match="not valid TOML"):
        load_config(tmp_path / "bad.toml")
