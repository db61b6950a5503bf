"""Exporting a student: a folder that transformers or PEFT reads without Tutelage, with a card that says what it is.

An adapter is not the one that a stage trained, which belongs to the student before it: it is what all stages of the
line changed in the base weights, as a product of two thin matrices. LoRA stages change no more than that, so it is
exact up to rounding; how far its replies are off is measured and told. What was trained in full has none.
"""

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tutelage import lineage, model_card
from tutelage.errors import ConfigError, MissingPart, RecordError, TutelageError
from tutelage.measures import Student, address
from tutelage.model_card import Format
from tutelage.training import content, weights
from tutelage.training.base import weights_of

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from tutelage.workspace import Workspace

    Factors = dict[str, tuple[torch.Tensor, torch.Tensor]]

PROBE = "The same text for both, so that their next tokens can be compared: 0123456789"


@dataclass(frozen=True)
class Exported:
    """What was written."""

    folder: Path
    format: Format
    student: str
    content: str
    """Digest of the student's own files; empty if they were not noted."""
    rank: int = 0
    """Of an adapter."""
    error: float = 0.0
    """Of an adapter: the largest difference of a logit from the student's over a line of text, both in float32."""


def export(workspace: "Workspace", student: Student, out: Path, format: Format) -> Exported:
    """Write the student to the new folder `out`, which appears complete or not at all.

    Raises:
        TutelageError: `out` exists or cannot be written.
        ConfigError: what it learned does not fit into an adapter.
        RecordError, MissingPart: its weights, or those it began with, are not what they were, or not here.
    """
    if out.exists():
        raise TutelageError(f"{out} exists; name a new folder")
    source = weights.ensure(weights_of(student, workspace.folder))
    base = _base(workspace, student, format)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise TutelageError(f"cannot write {out}: {error.strerror or error}") from error
    try:
        done = Exported(out, format, student.label, student.content)
        if format == "adapter":
            assert base is not None, "what is missing was refused"
            rank, wrong = _write_adapter(base, source, made, student)
            done = Exported(out, format, student.label, student.content, rank, wrong)
        else:
            _copy(source, made, student)
        card = model_card.card(workspace, student, format, base=base, note=_note(done, student))
        (made / "README.md").write_text(card, encoding="utf-8")
        made.chmod(0o755)
        made.rename(out)
    except OSError as error:
        raise TutelageError(f"cannot write {out}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return done


def _base(workspace: "Workspace", student: Student, format: Format) -> Path | None:
    """Folder of the weights that the student's line began with; None if they are not here, and nothing needs them.

    Raises:
        ConfigError: it is the base itself, which an adapter changes nothing of.
        MissingPart: they are not here, and an adapter is relative to them.
        RecordError: they are others by now.
    """
    first = lineage.line(workspace.record, student)[0]
    try:
        folder = weights.ensure(weights_of(first, workspace.folder))
    except MissingPart:
        if format == "adapter":
            raise
        return None
    if format == "adapter":
        if first.id == student.id:
            raise ConfigError(f"{student.label} is the base itself; export what was trained from it, or this merged")
        if student.base_content and address(content.digests(folder)) != student.base_content:
            raise RecordError(
                f"{student.label} began with other weights than {first.weights} holds now, so there is nothing that "
                "an adapter could be applied to; export it merged"
            )
    return folder


def _copy(source: Path, made: Path, student: Student) -> None:
    """The student's own files, and nothing else of its folder."""
    names = [name for name in content.digests(source) if name != "README.md"]
    for name in names:
        shutil.copyfile(source / name, made / name)
    copied = content.digests(made)
    if student.files and any(copied[name] != student.files[name] for name in names):
        raise RecordError(f"{source} changed while it was copied; export it again once nothing writes there")


def _note(done: Exported, student: Student) -> str:
    if done.format == "merged":
        return ""
    return (
        f"This is a LoRA adapter of rank {done.rank} with all that its stages changed. It belongs to base weights "
        f"whose files have the digest `{student.base_content[:16] or 'not noted'}`, and to no others; with them, in "
        f"float32, no logit of a line of text was off by more than {done.error:.1e}."
    )


# -- the adapter ----------------------------------------------------------------------------------


def _write_adapter(base: Path, source: Path, made: Path, student: Student) -> tuple[int, float]:
    """Its rank, and how far its logits are off."""
    import torch
    from peft import LoraConfig, PeftModel, get_peft_model

    plain, tokenizer = weights.load(str(base))
    trained, _ = weights.load(str(source))
    factors = low_rank(plain, trained, student.label)
    rank = max(1, *(first.shape[0] for first, _ in factors.values()))  # PEFT knows no rank 0
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=sorted(factors), task_type="CAUSAL_LM")
    adapted = get_peft_model(plain, config)
    assert isinstance(adapted, PeftModel)
    with torch.no_grad():
        for name, (first, second) in factors.items():
            layer: Any = adapted.get_base_model().get_submodule(name)
            for matrix in (layer.lora_A["default"].weight, layer.lora_B["default"].weight):
                matrix.zero_()
            layer.lora_A["default"].weight[: first.shape[0]].copy_(first)
            layer.lora_B["default"].weight[:, : second.shape[1]].copy_(second)
        ids = torch.tensor([tokenizer.encode(PROBE)])
        error = float((adapted.eval()(ids).logits - trained(ids).logits).abs().max())
    # A folder of this machine says nothing elsewhere.
    adapted.peft_config["default"].base_model_name_or_path = weights.public_name(student.base)
    with weights.quiet():
        adapted.save_pretrained(str(made), save_embedding_layers=False)
    return rank, error


def low_rank(base: "PreTrainedModel", trained: "PreTrainedModel", label: str) -> "Factors":
    """What training has changed in each linear layer, (rank, in) and (out, rank), by the layer's name.

    A singular value counts if it is above what rounding the weights leaves behind.

    Raises:
        ConfigError: something else changed too, or a change is not of low rank.
    """
    import torch

    head = base.get_output_embeddings()
    linear = {
        f"{name}.weight": name
        for name, module in base.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    }
    before, after = dict(base.named_parameters()), dict(trained.named_parameters())
    if before.keys() != after.keys() or any(before[name].shape != after[name].shape for name in before):
        raise ConfigError(f"{label} has another shape than its base: export it merged")
    factors: Factors = {}
    for name, old in before.items():
        change = after[name].detach() - old.detach()
        if name not in linear:
            if change.any():
                raise _in_full(label, name)
            continue
        left, values, right = torch.linalg.svd(change, full_matrices=False)
        rows, columns = change.shape
        noise = 4 * torch.finfo(old.dtype).eps * old.detach().square().mean().sqrt().item()
        rank = int((values > noise * (rows**0.5 + columns**0.5)).sum())
        if rank > min(rows, columns) // 2:
            raise _in_full(label, name)
        root = values[:rank].sqrt()
        factors[linear[name]] = (root[:, None] * right[:rank], left[:, :rank] * root)
    return factors


def _in_full(label: str, name: str) -> ConfigError:
    return ConfigError(
        f"what {label} learned does not fit into an adapter: {name} was trained in full. Export it with --format "
        'merged, or train with student.method = "lora"'
    )
