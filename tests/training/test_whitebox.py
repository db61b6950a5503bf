"""Which teacher may teach: known from the record, of the student's vocabulary, and consistent with the data."""

import copy
from dataclasses import replace

import pytest

from tutelage.agents.graph import run_episodes
from tutelage.agents.llm_policy import LLMPolicy
from tutelage.config import ActConfig
from tutelage.corrections import Correction, keep
from tutelage.environments.toy import Toy
from tutelage.errors import ConfigError
from tutelage.llm import LLM
from tutelage.measures import Student
from tutelage.stage_config import DistillConfig
from tutelage.training import weights
from tutelage.training.whitebox import check_tokenizers, find_teacher, fit_vocabulary, tokenizer_digest
from tutelage.types import Split


@pytest.fixture(scope="module")
def demonstrations():
    expert = LLMPolicy(LLM("expert/toy", role="teacher"))
    return run_episodes(Toy.tasks(Split.TRAIN, count=1), expert, lambda _: Toy(), act=ActConfig())


@pytest.fixture
def fine_tuned(stage_context, demonstrations):
    """``fine_tuned(policy, …)``: the context of student@2, fine-tuned from student@0 on one success by each policy;
    student@1 stands beside them."""

    def make(*policies, corrected_by=""):
        context = stage_context()
        made = [item.model_copy(update={"policy": by}) for item, by in zip(demonstrations, policies, strict=False)]
        for item in made:
            context.record.add_trajectory(item, key=item.id, cycle=1, arm="demonstrations")
        if corrected_by:
            correction = Correction(trajectory=made[0].id, step=0, reply="noop()", author=corrected_by)
            keep(context.record, correction, arm="explored", cycle=1)
        base, settings = context.student, {"corrections": bool(corrected_by)}
        ids = tuple(item.id for item in made)
        beside = Student(number=1, stage="sft", cycle=1, weights="beside", parent=base.id)
        tuned = Student(
            number=2, stage="sft", cycle=1, weights="x", parent=base.id, trajectories=ids, settings=settings
        )
        for student in (base, beside, tuned):
            context.record.add_student(student)
        return replace(context, student=tuned)

    return make


def test_what_made_the_data_is_the_teacher_if_none_is_named(fine_tuned):
    mixed = (
        "student@1 (tiny (random weights))",
        "student@1 (tiny (random weights)) + mistakes (scripted)",
        "student@2",
    )
    context = fine_tuned(*mixed)
    (context.workspace / "beside").mkdir()
    found = find_teacher(DistillConfig(), context)
    assert found.label == "student@1"
    assert found.weights == str(context.workspace / "beside")
    assert found.makers == {"student@1": 2}, "what a student comes to by itself is no teacher's"
    by_path = find_teacher(DistillConfig(teacher=found.weights), context)
    assert by_path == found, "the same weights under another name"


def test_a_served_teacher_is_known_by_the_name_of_its_weights(fine_tuned):
    found = find_teacher(DistillConfig(teacher="Qwen/Qwen2.5-7B"), fine_tuned("hosted_vllm/Qwen/Qwen2.5-7B"))
    assert found.label == found.weights == "Qwen/Qwen2.5-7B"


@pytest.mark.parametrize(
    ("teacher", "policies", "corrected_by", "said"),
    [
        ("", (), "", "name distill's teacher"),
        ("", ("expert/toy (scripted)",), "", r"came from expert/toy \(scripted\) \(1\); .* weights are here"),
        (
            "student@1",
            ("expert/toy (scripted)",) * 2,
            "",
            r"scripted\) \(2\), so a gradient towards student@1 is biased",
        ),
        ("student@1", ("student@1",), "gpt-5", r"student@1 \(1\), gpt-5 \(1\), so a gradient"),
        ("student@7", ("student@1",), "", "student@7"),
        ("student@2", (), "", "by itself"),
    ],
)
def test_a_teacher_that_may_not_teach_is_refused(fine_tuned, teacher, policies, corrected_by, said):
    context = fine_tuned(*policies, corrected_by=corrected_by)
    with pytest.raises(ConfigError, match=said):
        find_teacher(DistillConfig(teacher=teacher), context)
    if "biased" in said:
        assert find_teacher(DistillConfig(teacher=teacher, other_teacher=True), context).label == teacher


def test_tokenizers_must_be_the_same():
    student = weights.load_tokenizer("tiny")
    same, more = copy.deepcopy(student), copy.deepcopy(student)
    check_tokenizers(student, same, "it")
    assert tokenizer_digest(student) == tokenizer_digest(same)
    same.chat_template += " "
    with pytest.raises(ConfigError, match="that of it have different chat templates"):
        check_tokenizers(student, same, "it")
    more.add_tokens(["<page>"])
    with pytest.raises(ConfigError, match=r"different vocabularies \(4096 and 4097 tokens\)"):
        check_tokenizers(student, more, "it")
    assert len({tokenizer_digest(item) for item in (student, same, more)}) == 3


def test_rows_of_the_head_beyond_the_vocabulary_are_cut():
    teacher, tokenizer = weights.load("tiny")
    kept = teacher.get_output_embeddings().weight[:4096].clone()
    teacher.resize_token_embeddings(4096 + 64)
    fit_vocabulary(teacher, 4096, len(tokenizer))
    assert teacher.get_output_embeddings().weight.equal(kept)
    with pytest.raises(ConfigError, match="4096 rows and the student's has 4160"):
        fit_vocabulary(teacher, 4160, len(tokenizer))
