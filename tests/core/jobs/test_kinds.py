"""What jobs take is looked at before they are queued."""

from pathlib import Path

import pytest

from tutelage.config import CONFIG_FILE, Config
from tutelage.errors import ConfigError, UnknownName
from tutelage.jobs.kinds import params_of, settings
from tutelage.service_config import JobKind


@pytest.mark.parametrize("policy", ["teacher", "expert", "oracle", "student", "student@99", "openai/gpt-4o-mini"])
def test_policies_that_can_be(policy: str) -> None:
    assert params_of(JobKind.EVALUATE, {"policy": policy}).model_dump()["policy"] == policy


@pytest.mark.parametrize("policy", ["nobody", "student@", "student@new", "Student", ""])
def test_policies_that_cannot_be(policy: str) -> None:
    with pytest.raises(ConfigError, match=r"evaluate job: policy: .*unknown policy .*student@N"):
        params_of(JobKind.EVALUATE, {"policy": policy})


@pytest.mark.parametrize("kind", [JobKind.EVALUATE, JobKind.ANNOTATE])
def test_environments_are_those_configured_or_known(tmp_path: Path, kind: JobKind) -> None:
    config = Config.model_validate({"environments": [{"name": "toy", "families": ["press"]}]})
    (tmp_path / CONFIG_FILE).write_text(config.model_dump_json())
    found = settings(tmp_path, params_of(kind, {"environment": ["toy", "files"]}))
    assert [(item.name, item.families) for item in found.environments] == [("toy", ("press",)), ("files", ())]
    with pytest.raises(UnknownName, match=r"unknown environment 'nope'; known: .*toy"):
        settings(tmp_path, params_of(kind, {"environment": ["toy", "nope"]}))
