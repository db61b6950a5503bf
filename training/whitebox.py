"""Which local model distillation learns from, and whether it is the right one.

Two things are checked before anything is sampled. Teacher and student must read the same tokens, since
the loss compares their distributions token by token. And the teacher should be the one that made the
data of supervised fine-tuning: with another one the gradient is biased towards a worse fixed point
(teacher consistency, Lightning OPD, 2604.13010). Who made that data is in the record: the policy of each
trajectory behind the sft stages of the student's lineage, and the author of each correction used there.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from tutelage.corrections import kept
from tutelage.errors import ConfigError, RecordError
from tutelage.measures import Student
from tutelage.stage_config import DistillConfig
from tutelage.training.base import StageContext, weights_of

STUDENT = re.compile(r"student@\d+")
ADDED = re.compile(r"( \+ mistakes \(scripted\)| with first thought)$")
"""What the labels of wrapped policies end with; the wrapped one still made the accepted turns."""
PROBE = (
    'click("e3")  fill("e12", "Zoë\'s naïve café — 東京, Привет 🙂")\n\n\tdef f(x):\n    return x**2 != 1_000.50\r\n'
    '<button id=7>OK</button> {"a": [1, 2.5e-3]} ABC abc \u00a0end  '
)
"""Text on which tokenizers that differ at all are likely to differ."""


@dataclass(frozen=True)
class WhiteBox:
    """A teacher whose weights are here."""

    label: str
    """``student@N`` if this workspace made it, else the weights' name."""
    weights: str
    """As `training.weights.load` takes them."""
    makers: Mapping[str, int]
    """Who made the data of the student's fine-tuning, with the number of trajectories."""


def find_teacher(stage: DistillConfig, context: StageContext) -> WhiteBox:
    """The teacher that the stage names, or the one that made the fine-tuning data.

    Raises:
        ConfigError: there is none by that name, it is the student itself, or it did not make that data.
    """
    makers = makers_of(context)
    made = f"the data that {context.student.label} was fine-tuned on came from " + _listed(makers)
    if not stage.teacher and not makers:
        raise ConfigError(f"{context.student.label} was never fine-tuned on a teacher's data: name distill's teacher")
    name = stage.teacher or next(iter(makers))
    try:
        label, found = _named(name, context)
    except RecordError as error:
        raise ConfigError(f"distill's teacher: {error}") from error
    if not stage.teacher and label == name and not STUDENT.fullmatch(name):
        raise ConfigError(
            f"{made}; distill needs a teacher whose weights are here: set its teacher to weights or to student@N"
        )
    if found == context.start:
        raise ConfigError(f"distill would teach {label} by itself: name another teacher")
    others = {maker: count for maker, count in makers.items() if not _same(maker, label)}
    if others and not stage.other_teacher:
        raise ConfigError(
            f"{made}, so a gradient towards {label} is biased (Lightning OPD); distill from what made the data, "
            "or accept that with other_teacher = true"
        )
    return WhiteBox(label, found, makers)


def makers_of(context: StageContext) -> dict[str, int]:
    """Policies whose trajectories, and authors whose corrections, the student's lineage was fine-tuned on.

    Successes that a student of the lineage came to by itself are no teacher's and are left out, and so are
    trajectories that were forgotten since. Most trajectories first.
    """
    record = context.record
    lineage = list(_lineage(context))
    own = {student.label for student in lineage}
    authors: dict[str, list[str]] = {}
    for trajectory, correction in kept(record):
        authors.setdefault(trajectory.id, []).append(correction.author)
    makers: dict[str, str] = {}
    for student in (item for item in lineage if item.stage == "sft"):
        for name in filter(record.has_trajectory, student.trajectories):
            trajectory = record.trajectory(name)
            if trajectory.success:
                makers[name] = _maker(trajectory.policy)
            if student.settings.get("corrections"):
                makers |= {f"{name} {place}": author for place, author in enumerate(authors.get(name, ()))}
    counted = Counter(maker for maker in makers.values() if maker not in own)
    return dict(counted.most_common())


def check_tokenizers(student: PreTrainedTokenizerBase, teacher: PreTrainedTokenizerBase, label: str) -> None:
    """Whether both turn the same conversation into the same ids.

    Raises:
        ConfigError: they do not; the message says where they differ.
    """
    parts: tuple[tuple[str, Any, Any], ...] = (
        ("vocabularies", student.get_vocab(), teacher.get_vocab()),
        ("special tokens", student.special_tokens_map, teacher.special_tokens_map),
        ("chat templates", student.chat_template, teacher.chat_template),
        ("ways to split text", _split(student), _split(teacher)),
    )
    different = [what for what, mine, its in parts if mine != its]
    if different:
        sizes = f" ({len(student)} and {len(teacher)} tokens)" if different[0] == "vocabularies" else ""
        raise ConfigError(
            f"the student's tokenizer and that of {label} have different {', '.join(different)}{sizes}; "
            "distill needs a teacher of the same model family"
        )


def fit_vocabulary(teacher: Any, size: int, tokens: int) -> None:
    """Cut the teacher's head to the student's `size`; rows beyond the tokenizer's `tokens` stand for nothing.

    Members of one family pad their heads differently (Qwen2.5: 151,936 rows in the small, 152,064 in the large).

    Raises:
        ConfigError: the teacher has fewer rows than the student, which cannot be compared.
    """
    rows = int(teacher.config.get_text_config().vocab_size)
    if rows > size >= tokens:
        teacher.resize_token_embeddings(size)
    elif rows != size:
        raise ConfigError(
            f"the teacher's head has {rows} rows and the student's has {size}, so they cannot be compared: name a "
            "teacher of the student's own family"
        )


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 over everything that `check_tokenizers` compares."""
    parts = (
        sorted(tokenizer.get_vocab().items()),
        tokenizer.special_tokens_map,
        tokenizer.chat_template,
        _split(tokenizer),
    )
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _named(name: str, context: StageContext) -> tuple[str, str]:
    """Label and weights; weights that are a student's are known by its label."""
    if STUDENT.fullmatch(name):
        return name, weights_of(context.record.student(name), context.workspace)
    for student in context.record.students():
        if name in (student.weights, str(context.workspace / student.weights)):
            return student.label, weights_of(student, context.workspace)
    return name, name


def _lineage(context: StageContext) -> Iterator[Student]:
    """The student that the stage starts from, and its ancestors."""
    student = context.student
    while True:
        yield student
        if student.parent is None:
            return
        student = context.record.student(student.parent)


def _maker(policy: str) -> str:
    """Who is behind the label of a policy: ``student@3 (tiny)`` is student@3."""
    student = STUDENT.match(policy)
    return student[0] if student else ADDED.sub("", policy)


def _same(maker: str, label: str) -> bool:
    """Whether a maker is this teacher; a served one is called ``PROVIDER/WEIGHTS``."""
    return maker == label or maker.endswith(f"/{label}")


def _split(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    return list(tokenizer.encode(PROBE, add_special_tokens=False, split_special_tokens=True))


def _listed(makers: Mapping[str, int]) -> str:
    return ", ".join(f"{maker} ({count})" for maker, count in makers.items()) or "nobody"
