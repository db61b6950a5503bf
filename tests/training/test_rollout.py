"""Rollouts: what was sampled is what is trained on, and what broke carries no loss."""

from dataclasses import replace
from itertools import chain

import pytest

from tutelage.config import GrpoConfig
from tutelage.environments.toy import Toy
from tutelage.errors import EnvironmentBroken
from tutelage.training import weights
from tutelage.training.chat import ChatEncoder
from tutelage.training.online import task_of, task_rows
from tutelage.training.rollout import Rollouts, figures, flatten, shaped_reward
from tutelage.types import Cause, Diagnosis, Ending, Split

STAGE = GrpoConfig(steps=2, batch_size=4, group_size=2, temperature=1.0)


@pytest.fixture(scope="module")
def tiny():
    return weights.load("tiny")


def tasks_of_a_batch(context):
    return list(chain.from_iterable([task] * STAGE.group_size for task in context.tasks[:2]))


class Flaky(Toy):
    """Breaks whenever it is given a task of family ``form``."""

    def start(self, task):
        if task.family == "form":
            raise EnvironmentBroken("the page crashed")
        return super().start(task)


def test_sequences_are_the_sampled_tokens_in_order(stage_context, tiny):
    model, tokenizer = tiny
    context = stage_context()
    rollouts = Rollouts(STAGE, context, tokenizer)
    episodes = rollouts(tasks_of_a_batch(context), model)
    encoder = ChatEncoder(tokenizer)
    for episode in episodes:
        flat, whole = flatten(episode), encoder.episode(episode.trajectory)
        assert flat.prompt_ids + flat.completion_ids == whole.ids
        assert [0] * len(flat.prompt_ids) + flat.mask == whole.mask
        assert sum(flat.mask) == episode.sampled > 0
        assert all(value < 0 for value, kept in zip(flat.logprobs, flat.mask, strict=True) if kept)
        assert not episode.trajectory.memory
    first, second = episodes[:2]
    assert first.trajectory.task == second.trajectory.task
    assert first.turns[0].prompt == second.turns[0].prompt
    assert first.turns[0].sampled != second.turns[0].sampled  # same task, seeds of their own
    again = Rollouts(STAGE, context, tokenizer)(tasks_of_a_batch(context), model)
    assert [episode.turns for episode in again] == [episode.turns for episode in episodes]


def test_a_broken_episode_is_masked_and_moves_nobody(stage_context, tiny):
    model, tokenizer = tiny
    context = replace(stage_context(), make_environment=lambda _: Flaky())
    press, form = (next(t for t in context.tasks if t.family == family) for family in ("press", "form"))
    episodes = Rollouts(STAGE, context, tokenizer)([press, form, form, form], model)
    assert [episode.broken for episode in episodes] == [False, True, True, True]
    assert episodes[1].reward == episodes[0].reward == pytest.approx(-0.05 * 3)
    for episode in episodes[1:]:
        flat = flatten(episode)
        assert flat.completion_ids
        assert not any(flat.mask)
    values = figures(episodes, STAGE.group_size)
    assert (values["broken"], values["success"], values["groups_with_variance"]) == (0.75, 0.0, 0.0)


def test_success_is_reported_without_shaping(stage_context, tiny):
    model, tokenizer = tiny
    context = stage_context()
    episode, *rest = Rollouts(STAGE, context, tokenizer)(tasks_of_a_batch(context), model)
    slip = episode.trajectory.steps[0].model_copy(update={"diagnosis": Diagnosis(cause=Cause.UNKNOWN_TARGET)})
    won = episode.trajectory.model_copy(update={"steps": (slip,), "ending": Ending.SOLVED})
    assert shaped_reward(won, GrpoConfig(invalid_penalty=0.05)) == pytest.approx(0.95)
    values = figures([replace(episode, trajectory=won, reward=0.95), *rest], STAGE.group_size)
    assert values["success"] == 0.25
    assert values["reward"] == pytest.approx(values["success"] + values["shaping"])
    assert values["groups_with_variance"] == 0.5


def test_rows_carry_their_task_and_only_of_the_train_split(stage_context):
    context = stage_context()
    rows = task_rows(STAGE, context.tasks[:3])
    assert [task_of(row["prompt"]) for row in rows] == [*context.tasks[:3], context.tasks[0]]
    with pytest.raises(ValueError, match="train split"):
        task_rows(STAGE, Toy.tasks(Split.TEST))
