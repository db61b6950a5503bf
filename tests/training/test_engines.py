"""Which engine answers, and what is refused before anything is done."""

import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from token_server import token_server

from tutelage.agents.graph import run_episodes
from tutelage.config import Config, StudentConfig, load_config
from tutelage.environments.toy import Toy
from tutelage.errors import ConfigError, MissingPart
from tutelage.measures import Student
from tutelage.stage_config import GrpoConfig, SftConfig
from tutelage.training import engines, weights
from tutelage.training.policy import StudentPolicy
from tutelage.training.server_policy import ServerPolicy
from tutelage.training.vllm_policy import ALONE, BESIDE_TRAINING
from tutelage.types import Context, Message, Split, Trajectory
from tutelage.workspace import Workspace

BASE = Student(number=0, stage="base", cycle=0, weights="tiny")
CONTEXT = Context("k", (Message(role="system", content="Act."), Message(role="user", content="Go.")), 3)


def config(**student: Any) -> StudentConfig:
    return StudentConfig(weights="tiny", dtype="float32", max_new_tokens=6, **student)


def played(workspace: Workspace) -> list[Trajectory]:
    """Episodes of the workspace's base student in real environments."""
    policy = workspace.student_policy(workspace.base_student())
    return run_episodes(Toy.tasks(Split.VALIDATION, count=3), policy, lambda _: Toy(), act=workspace.config.act)


def test_a_served_student_is_evaluated_like_the_one_here(tmp_path: Path) -> None:
    with token_server(*weights.load("tiny"), name="tiny") as served:
        found = []
        for place, engine in enumerate(({}, {"engine": "server", "server": served.url})):
            values = {"workspace": tmp_path / str(place), "stages": [SftConfig()], "act": {"max_steps": 2}}
            workspace = Workspace(Config(environments=[{"name": "toy"}], student=config(**engine), **values))
            found.append(played(workspace))
            workspace.close()
        assert isinstance(engines.acting(BASE, config(engine="server", server=served.url), "tiny"), ServerPolicy)
    here, there = found
    assert [one.policy for one in there] == [one.policy for one in here]
    for one, other in zip(there, here, strict=True):
        assert [step.reply for step in one.steps] == [step.reply for step in other.steps]
        for step, same in zip(one.steps, other.steps, strict=True):
            assert step.tokens
            assert same.tokens
            assert (step.tokens.prompt, step.tokens.sampled) == (same.tokens.prompt, same.tokens.sampled)
            assert step.tokens.logprobs == pytest.approx(same.tokens.logprobs, abs=1e-5)


def test_a_trained_student_is_asked_for_by_its_own_name(tmp_path: Path) -> None:
    model, tokenizer = weights.load("tiny")
    weights.save(model, tokenizer, tmp_path / "3")
    third = Student(number=3, stage="sft", cycle=1, weights="students/3")
    assert engines.served_names(third, str(tmp_path / "3")) == ["student@3", str(tmp_path / "3")]
    with token_server(model, tokenizer, name="tiny") as served, pytest.raises(ConfigError, match="not student@3"):
        engines.acting(third, config(engine="server", server=served.url), str(tmp_path / "3"))


def test_rollouts_follow_the_weights_that_are_trained() -> None:
    model, tokenizer = weights.load("tiny")
    sampler = engines.sampler(config(), "tiny", tokenizer)
    before = sampler(model, label="student@0+grpo.0", temperature=0.7).act([CONTEXT])
    with torch.no_grad():
        model.model.embed_tokens.weight.mul_(-1)
    after = sampler(model, label="student@0+grpo.1", temperature=0.7)
    assert (after.label, after.act([CONTEXT])[0].text != before[0].text) == ("student@0+grpo.1", True)
    assert isinstance(after, StudentPolicy)


def test_what_cannot_be_is_refused_when_the_config_is_read(tmp_path: Path) -> None:
    served = {"engine": "server", "server": "http://localhost:8000"}
    with pytest.raises(ValidationError, match=r"stages: grpo: rollouts .* a server keeps its own"):
        Config(student=config(**served), stages=(SftConfig(), GrpoConfig()))
    assert Config(student=config(**served), stages=(SftConfig(),)).student.engine == "server"
    with pytest.raises(ValidationError, match="server is the URL"):
        config(engine="server")
    with pytest.raises(ValidationError, match="a URL such as"):
        config(engine="server", server="localhost:8000")
    with pytest.raises(ValidationError, match="one process"):
        config(engine="vllm", processes=2)
    file = tmp_path / "config.toml"
    file.write_text('stages = [{ type = "sdpo" }]\nstudent = { engine = "server", server = "http://localhost:1" }\n')
    with pytest.raises(ConfigError, match=r"config.toml: .*sdpo.*student.engine"):
        load_config(file)


def test_a_student_does_not_act_beyond_its_positions() -> None:
    with pytest.raises(ConfigError, match="set it to 8192 or less"):
        engines.acting(BASE, config(max_length=9000), "tiny")


def test_a_server_trains_nothing() -> None:
    with pytest.raises(ConfigError, match="keeps its own weights"):
        engines.sampler(config(engine="server", server="http://localhost:1"), "tiny", None)


def test_without_vllm_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)  # as if it were not installed
    for make in (
        lambda: engines.acting(BASE, config(engine="vllm"), "tiny"),
        lambda: engines.sampler(config(engine="vllm"), "tiny", None),
    ):
        with pytest.raises(MissingPart, match="needs vLLM and a GPU: pip install"):
            make()


def test_vllm_leaves_memory_to_the_stages_that_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []

    def without_a_gpu(name: str, config: StudentConfig, memory: float) -> None:
        asked.append(memory)
        raise MissingPart(name)

    monkeypatch.setattr(engines, "_vllm", without_a_gpu)
    for stages in ([{"type": "grpo"}], []):
        settings = {"workspace": tmp_path / str(len(stages)), "environments": [{"name": "toy"}], "stages": stages}
        workspace = Workspace(Config.model_validate(settings | {"student": {"weights": "tiny", "engine": "vllm"}}))
        with pytest.raises(MissingPart):
            workspace.student_policy(BASE)
        workspace.close()
    assert asked == [BESIDE_TRAINING, ALONE]


def test_vllm_without_a_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    found = ModuleType("vllm")
    found.__spec__ = ModuleSpec("vllm", None)
    monkeypatch.setitem(sys.modules, "vllm", found)  # as if it were installed
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(MissingPart, match="needs a GPU"):
        engines.acting(BASE, config(engine="vllm"), "tiny")
