"""What a workspace's students learn from, as files for other tools: Parquet or JSONL that `datasets` loads, and a
manifest.

``sft`` has the rows that fine-tuning would be given now, ``rollouts`` the episodes that students were trained on by
stages that act themselves. Tokens are those of training, experiences stripped; loss is where a label is not -100.
Nothing held out gets in, nor what was forgotten, nor what is not trusted; what is left out is counted.
"""

import hashlib
import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from tutelage.corrections import Corrected, kept
from tutelage.cycle import accepted_trajectories, experience_trajectories
from tutelage.errors import RecordError
from tutelage.lineage import commit
from tutelage.measures import Student
from tutelage.memory.trust import of_trajectory
from tutelage.record_forgetting import FORGOTTEN
from tutelage.stage_config import GrpoConfig
from tutelage.training.base import weights_of
from tutelage.training.chat import ChatEncoder
from tutelage.training.rollout import broke, shaped_reward
from tutelage.training.samples import IGNORED, sft_rows
from tutelage.training.weights import load_tokenizer
from tutelage.training.whitebox import tokenizer_digest
from tutelage.types import Split, Trajectory
from tutelage.workspace import Workspace

Format = Literal["parquet", "jsonl"]
Row = dict[str, Any]
MANIFEST = "manifest.json"
MANIFEST_VERSION = 1


@dataclass
class Part:
    """One file of the set."""

    rows: list[Row] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    """How many episodes (or corrections), by why."""


def export(workspace: Workspace, out: Path, format: Format = "parquet") -> dict[str, Any]:
    """Write the training set into the new folder `out`, which appears complete or not at all.

    Returns:
        The manifest.

    Raises:
        RecordError: `out` is there already, or cannot be written; or a row would be of a held-out task.
        MissingPart: the student's tokenizer is not here.
    """
    if out.exists():
        raise RecordError(f"{out} exists; a training set is written into a new folder")
    student = workspace.current_student()
    tokenizer = load_tokenizer(weights_of(student, workspace.folder))
    with workspace.record.reading():
        parts = {"sft": supervised(workspace, tokenizer), "rollouts": rollouts(workspace, tokenizer)}
        _check_held_out(workspace, parts)
        manifest = _manifest(workspace, student, tokenizer, parts)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
        try:
            for name, part in parts.items():
                _write(part.rows, made / f"{name}.{format}", format)
            (made / MANIFEST).write_text(json.dumps(manifest, indent=1, ensure_ascii=False), encoding="utf-8")
            made.chmod(0o755)
            made.rename(out)
        finally:
            shutil.rmtree(made, ignore_errors=True)
    except OSError as error:
        raise RecordError(f"cannot write {error.filename or out}: {error.strerror}") from error
    return manifest


def supervised(workspace: Workspace, tokenizer: PreTrainedTokenizerBase) -> Part:
    """The rows that fine-tuning would be given now: accepted episodes, then corrections."""
    every, accepted = experience_trajectories(workspace), accepted_trajectories(workspace)
    chosen, corrections = (
        _trusted(workspace, accepted),
        [item for item in kept(workspace.record) if _trusted(workspace, [item[0]])],
    )
    made = sft_rows(chosen, ChatEncoder(tokenizer), workspace.config.student.max_length, corrections)
    part = Part(left_out=Counter({"not successful": len(every) - len(accepted)}))
    part.left_out += Counter(
        {
            "not trusted": len(accepted) - len(chosen),
            "longer than student.max_length": made.too_long,
            "no accepted turn": made.nothing_to_learn,
            "forgotten": sum(stone.kind == "trajectory" for stone in workspace.record.tombstones()),
        }
    )
    sources = {item.id: item for item in [*chosen, *(trajectory for trajectory, _ in corrections)]}
    first_correction = len(made.trajectories) - made.corrected
    for place, (tokens, source) in enumerate(zip(made.dataset, made.trajectories, strict=True)):
        is_correction, trajectory = place >= first_correction, sources[source]
        teacher = _authors(corrections, source) if is_correction else trajectory.policy
        kind = {"source": "correction" if is_correction else "episode", "teacher": teacher}
        part.rows.append(_row(tokens["input_ids"], tokens["labels"], tokenizer, trajectory) | kind)
    return part


def rollouts(workspace: Workspace, tokenizer: PreTrainedTokenizerBase) -> Part:
    """The episodes that students were trained on by stages that act, in the order of the students."""
    part, encoder = Part(), ChatEncoder(tokenizer)
    for student in workspace.record.students():
        if "group_size" not in student.settings:
            continue
        names = ("invalid_penalty", "partial_credit")
        shaping = {name: student.settings[name] for name in names if name in student.settings}
        stage = GrpoConfig.model_validate(shaping)  # for what it says about rewards
        for id in student.trajectories:
            trajectory = workspace.record.trajectory(id)
            if why := _unfit(workspace, trajectory):
                part.left_out[why] += 1
                continue
            about = {
                "stage": student.stage,
                "student": student.label,
                "policy": trajectory.policy,
                "group": f"{trajectory.policy}/{trajectory.task.id}",
                "reward": shaped_reward(trajectory, stage),
                "success": trajectory.success,
            }
            part.rows.append(_sampled(trajectory, encoder, tokenizer) | about)
    return part


def _unfit(workspace: Workspace, trajectory: Trajectory) -> str:
    """Why an episode that was trained on is no row any more."""
    if workspace.record.tombstone(trajectory.id) is not None:
        return FORGOTTEN
    if broke(trajectory):
        return "broken"
    if not trajectory.steps or any(step.tokens is None for step in trajectory.steps):
        return "tokens erased with an experience that they spelled"
    return "" if _trusted(workspace, [trajectory]) else "not trusted"


def _sampled(trajectory: Trajectory, encoder: ChatEncoder, tokenizer: PreTrainedTokenizerBase) -> Row:
    """The tokens as sampled; one that was shown experiences as it was trained on, without them.

    `logprobs` are those of the sampled tokens and 0 elsewhere; empty for an episode whose prompt was stripped, since
    they were sampled under another one.
    """
    ids: list[int] = []
    mask: list[int] = []
    logprobs: list[float] = []
    if trajectory.shown:
        ids, mask = encoder.episode(trajectory, experiences=False)
    else:
        for tokens in (step.tokens for step in trajectory.steps if step.tokens is not None):
            ids += [*tokens.prompt, *tokens.sampled]
            mask += [0] * len(tokens.prompt) + [1] * len(tokens.sampled)
            logprobs += [0.0] * len(tokens.prompt) + list(tokens.logprobs)
    labels = [token if marked else IGNORED for token, marked in zip(ids, mask, strict=True)]
    stripped = {"logprobs": logprobs, "stripped": bool(trajectory.shown)}
    return _row(ids, labels, tokenizer, trajectory) | stripped


def _row(ids: Sequence[int], labels: Sequence[int], tokenizer: PreTrainedTokenizerBase, of: Trajectory) -> Row:
    return {
        "input_ids": list(ids),
        "labels": list(labels),
        "text": str(tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)),
        "trajectory": of.id,
        "task": of.task.id,
        "experiences": [item.id for item in of.shown],
        "hash": hashlib.sha256(json.dumps([list(ids), list(labels)]).encode()).hexdigest(),
    }


def _authors(corrections: Sequence[Corrected], trajectory_id: str) -> str:
    return ", ".join(dict.fromkeys(item.author for source, item in corrections if source.id == trajectory_id))


def _trusted(workspace: Workspace, trajectories: Sequence[Trajectory]) -> list[Trajectory]:
    trust = workspace.trust
    return [item for item in trajectories if of_trajectory(item, trust) >= trust.threshold]


def _check_held_out(workspace: Workspace, parts: dict[str, Part]) -> None:
    """Each row is of a task of the train split, and of none that was ever played for another split."""
    record, tasks = workspace.record, {row["task"] for part in parts.values() for row in part.rows}
    held_out = {item.task.id for split in (Split.VALIDATION, Split.TEST) for item in record.trajectories(split=split)}
    ids = list({row["trajectory"] for part in parts.values() for row in part.rows})
    wrong = [id for id, (split, _) in record.trajectory_places(ids).items() if split is not Split.TRAIN]
    if wrong or tasks & held_out:
        raise RecordError(f"held-out tasks may not be trained on: {', '.join([*wrong, *sorted(tasks & held_out)])}")


def _manifest(
    workspace: Workspace, student: Student, tokenizer: PreTrainedTokenizerBase, parts: dict[str, Part]
) -> dict[str, Any]:
    config, rows = workspace.config, [row for part in parts.values() for row in part.rows]
    return {
        "version": MANIFEST_VERSION,
        "made by": {"tutelage": version("tutelage"), "commit": commit()},
        "config": config.model_dump(mode="json"),
        "seed": config.seed,
        "student": {"label": student.label, "weights": config.student.weights, "digest": student.digest},
        "students": [
            {"label": item.label, "stage": item.stage, "cycle": item.cycle, "digest": item.digest}
            for item in workspace.record.students()
        ],
        "tokenizer": tokenizer_digest(tokenizer),
        "teacher": {
            "model": config.teacher.model,
            "policies": sorted({row["teacher"] for row in parts["sft"].rows}),
        },
        "trajectories": sorted({row["trajectory"] for row in rows}),
        "experiences": sorted({id for row in rows for id in row["experiences"]}),
        "parts": {
            name: {
                "rows": len(part.rows),
                "left out": {why: count for why, count in sorted(part.left_out.items()) if count},
                "hashes": [row["hash"] for row in part.rows],
            }
            for name, part in parts.items()
        },
    }


def _write(rows: Sequence[Row], path: Path, format: Format) -> None:
    """An empty part has no file: neither format can say what its columns would be."""
    if not rows:
        return
    dataset = Dataset.from_list(list(rows))
    if format == "parquet":
        dataset.to_parquet(path)
    else:
        dataset.to_json(path, force_ascii=False)
