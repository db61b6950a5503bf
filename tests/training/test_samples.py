"""Training rows hold exactly what the student would have seen, and loss only where it did well."""

import pytest

from tutelage.conversation import conversation
from tutelage.corrections import Correction
from tutelage.training import weights
from tutelage.training.chat import ChatEncoder
from tutelage.training.policy import StudentPolicy
from tutelage.training.samples import IGNORED, row_order, sft_rows
from tutelage.types import Cause, Context, Diagnosis, Ending, Message, Shown, Split, Step, Task, Trajectory


@pytest.fixture(scope="module")
def loaded() -> tuple:
    return weights.load("tiny")


def trajectory(*turns: tuple[str, Cause], split: Split = Split.TRAIN) -> Trajectory:
    return Trajectory(
        task=Task(environment="toy", family="press", seed=0, split=split),
        goal="press red",
        system="You act.",
        policy="test",
        memory=True,
        shown=(Shown(id="exp_1", version=1, text="a secret of the memory"),),
        steps=tuple(
            Step(
                observation=f"page {index} <|im_end|>",
                notes=("Nothing changed.",) if index else (),
                reply=reply,
                action=reply,
                after="",
                diagnosis=Diagnosis(cause=cause),
            )
            for index, (reply, cause) in enumerate(turns)
        ),
        ending=Ending.SOLVED,
    )


MIXED = trajectory(
    ('think\nclick("r1")', Cause.PROGRESS), ('click("r9")', Cause.UNKNOWN_TARGET), ('click("r2")', Cause.SOLVED)
)


def test_rows_are_what_the_student_would_see(loaded: tuple) -> None:
    """Token for token: each prompt that the policy builds, without memory, is a prefix of the row."""
    encoder = ChatEncoder(loaded[1])
    (row,) = sft_rows([MIXED], encoder).dataset
    messages = conversation(MIXED, experiences=False)
    policy = StudentPolicy(*loaded, label="student@0", max_new_tokens=1)
    for end in (2, 4, 6):
        policy.forget(["k"])
        (reply,) = policy.act([Context("k", messages[:end], 0)])
        assert reply.tokens
        assert row["input_ids"][: len(reply.tokens.prompt)] == list(reply.tokens.prompt)
    assert "secret" not in encoder.tokenizer.decode(row["input_ids"])


def test_loss_is_on_accepted_turns_only(loaded: tuple) -> None:
    encoder = ChatEncoder(loaded[1])
    (row,) = sft_rows([MIXED], encoder).dataset
    learned = [label for label in row["labels"] if label != IGNORED]
    assert learned == [*encoder.reply('think\nclick("r1")'), *encoder.reply('click("r2")')]
    for token, label in zip(row["input_ids"], row["labels"], strict=True):
        assert label in (IGNORED, token)


def test_what_cannot_be_used_is_counted(loaded: tuple) -> None:
    encoder = ChatEncoder(loaded[1])
    long = trajectory(("word " * 200, Cause.SOLVED))
    bad = trajectory(('click("r9")', Cause.NO_EFFECT))
    rows = sft_rows([MIXED, long, bad], encoder, max_length=150)
    assert (rows.trajectories, rows.too_long, rows.nothing_to_learn) == ((MIXED.id,), 1, 1)


def test_held_out_episodes_are_refused(loaded: tuple) -> None:
    held_out = trajectory(("x", Cause.SOLVED), split=Split.VALIDATION)
    with pytest.raises(ValueError, match="only train"):
        sft_rows([held_out], ChatEncoder(loaded[1]))


def test_a_correction_is_the_students_way_there_and_the_teachers_reply(loaded: tuple) -> None:
    """The prompt is the one that the student had, experiences stripped; loss is on the teacher's reply alone."""
    encoder = ChatEncoder(loaded[1])
    right = 'look again\nclick("r5")'
    failed = MIXED.model_copy(update={"id": "trj_failed", "ending": Ending.FAILED})
    correction = Correction(trajectory=failed.id, step=1, reply=right, words="Wrong.", author="teacher")
    plain = sft_rows([MIXED], encoder)
    rows = sft_rows([MIXED], encoder, corrections=[(failed, correction)])
    assert (rows.trajectories, rows.corrected, plain.corrected) == ((MIXED.id, failed.id), 1, 0)
    assert rows.dataset[0] == plain.dataset[0]
    row, prompt = rows.dataset[1], encoder.conversation(conversation(failed, experiences=False)[:4])
    assert row["input_ids"] == [*prompt, *encoder.reply(right)]
    assert row["labels"] == [IGNORED] * len(prompt) + encoder.reply(right)
    assert sft_rows([], encoder, 20, corrections=[(failed, correction)]).too_long == 1


def test_corrections_of_held_out_or_other_episodes_are_refused(loaded: tuple) -> None:
    encoder = ChatEncoder(loaded[1])
    held_out = trajectory(("x", Cause.WRONG_END), split=Split.TEST)
    correction = Correction(trajectory=held_out.id, step=0, reply="y", author="teacher")
    with pytest.raises(ValueError, match="only train"):
        sft_rows([], encoder, corrections=[(held_out, correction)])
    with pytest.raises(ValueError, match="no state"):
        sft_rows([], encoder, corrections=[(MIXED, correction)])


def test_the_policy_samples_after_messages_of_its_own_making(loaded: tuple) -> None:
    """A row made of sampled tokens holds the very ids of the episode."""
    policy = StudentPolicy(*loaded, label="student@0", max_new_tokens=3)
    messages = conversation(MIXED, experiences=False)[:2]
    (first,) = policy.act([Context("k", messages, 0)])
    later = (*messages, Message(role="assistant", content=first.text), Message(role="user", content="Observation:\nb"))
    (second,) = policy.act([Context("k", later, 1)])
    steps = [
        Step(observation=o, reply=r.text, action="", after="", diagnosis=Diagnosis(cause="progress"), tokens=r.tokens)
        for o, r in (("page 0 <|im_end|>", first), ("b", second))
    ]
    ids, _ = ChatEncoder(loaded[1]).episode(MIXED.model_copy(update={"steps": tuple(steps)}), experiences=False)
    assert first.tokens
    assert second.tokens
    assert ids == [*first.tokens.prompt, *first.tokens.sampled, *second.tokens.prompt, *second.tokens.sampled]


@pytest.mark.parametrize("rows", [3, 40, 300])
def test_order_is_seeded_shuffled_and_bucketed(rows: int) -> None:
    lengths = [17 * row % 101 for row in range(rows)]
    order = row_order(lengths, batch_size=8, steps=50, seed=1)
    assert len(order) == 400
    assert order == row_order(lengths, batch_size=8, steps=50, seed=1)
    assert order != row_order(lengths, batch_size=8, steps=50, seed=2)
    assert order[:80] == row_order(lengths, batch_size=8, steps=10, seed=1), "a longer run starts the same"
    used = [order.count(row) for row in range(rows)]
    assert max(used) - min(used) <= 400 / rows * 0.5 + 2, "all rows take part about equally often"
    if rows == 300:
        spread = [max(part) - min(part) for part in zip(*[iter([lengths[row] for row in order])] * 8, strict=True)]
        assert sum(spread) / len(spread) < 20, "against about 78 in random batches"
