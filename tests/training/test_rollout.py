"""Rollouts: what was sampled is what is trained on, and what broke carries no loss."""

import json
from dataclasses import replace
from itertools import chain
from typing import ClassVar

import pytest

from tutelage.environments.toy import Toy
from tutelage.errors import EnvironmentBroken
from tutelage.experience import Experience, Guardrail, Recall, Skill, Source
from tutelage.stage_config import GrpoConfig
from tutelage.training import weights
from tutelage.training.chat import ChatEncoder
from tutelage.training.online import task_of, task_rows
from tutelage.training.rollout import Rollouts, figures, flatten, shaped_reward
from tutelage.types import Cause, Diagnosis, Ending, Shown, Split

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
    assert values["tasks"] == 2.0


def test_rows_carry_their_task_and_only_of_the_train_split(stage_context):
    context = stage_context()
    rows = task_rows(STAGE, context.tasks[:3])
    assert [task_of(row["prompt"]) for row in rows] == [*context.tasks[:3], context.tasks[0]]
    with pytest.raises(ValueError, match="train split"):
        task_rows(STAGE, Toy.tasks(Split.TEST))


def test_an_episode_without_room_for_a_reply_is_a_failure_that_is_learned_from(stage_context, tiny):
    model, tokenizer = tiny
    episodes = Rollouts(STAGE, stage_context(), tokenizer)(tasks_of_a_batch(stage_context("b")), model)
    first_turn = max(len(episode.turns[0].prompt) for episode in episodes) + 6
    room = max(sum(len(turn.prompt) + len(turn.sampled) for turn in e.turns[:2]) for e in episodes)
    assert room > first_turn
    context = stage_context("c", max_length=room)
    for episode in Rollouts(STAGE, context, tokenizer)(tasks_of_a_batch(context), model):
        trajectory = episode.trajectory
        assert trajectory.ending is Ending.POLICY_ERROR
        assert "too long" in trajectory.error
        assert not episode.broken
        assert sum(flatten(episode).mask) == episode.sampled > 0
        assert len(flatten(episode).prompt_ids + flatten(episode).completion_ids) <= room
    context = stage_context("d", max_length=64)  # not even the task has room
    hopeless = Rollouts(STAGE, context, tokenizer)(tasks_of_a_batch(context), model)
    assert all(episode.broken for episode in hopeless)


SKILL = Experience(
    environment="toy",
    family="form",
    goal="g",
    content=Skill(preconditions=(), procedure=("click it",), verification=()),
    sources=(Source(trajectory="", task=""),),
    author="hand",
    id="exp_1",
)
RULE = SKILL.model_copy(
    update={"id": "exp_2", "content": Guardrail(trigger=(), root_cause="Never.", forbidden="*", remedy="Stop.")}
)


class Memory:
    """Recalls one experience, of any task, and a guardrail that would stop everything."""

    def recall(self, task, goal, observation):
        return Recall(shown=(Shown(id="exp_1", version=1, text="Mind the zebra."),), guardrails=(RULE,))


def with_memory(context):
    return replace(context, memory=Memory(), experiences=[SKILL, RULE])


class Counted(Toy):
    """Notes every task that it is given."""

    begun: ClassVar[list] = []

    def start(self, task):
        self.begun.append(task)
        return super().start(task)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_every_episode_is_played_once(stage_context, tiny, share):
    model, tokenizer = tiny
    context = replace(with_memory(stage_context()), make_environment=lambda _: Counted())
    Counted.begun.clear()
    stage = STAGE.model_copy(update={"with_memory": share})
    episodes = Rollouts(stage, context, tokenizer)(tasks_of_a_batch(context), model)
    assert sorted(task.id for task in Counted.begun) == sorted(item.trajectory.task.id for item in episodes)
    assert sum(item.stripped for item in episodes) == share * len(episodes)


def test_some_of_each_group_are_shown_experiences_and_trained_on_without(stage_context, tiny):
    model, tokenizer = tiny
    context = with_memory(stage_context())
    stage = STAGE.model_copy(update={"group_size": 4, "batch_size": 8, "with_memory": 0.5})
    tasks = list(chain.from_iterable([task] * 4 for task in context.tasks[:2]))
    rollouts = Rollouts(stage, context, tokenizer)
    episodes = rollouts(tasks, model)
    assert [episode.trajectory.task for episode in episodes] == tasks
    encoder = ChatEncoder(tokenizer)
    for group in (episodes[:4], episodes[4:]):
        assert sum(episode.stripped for episode in group) == 2
    for episode in episodes:
        trajectory = episode.trajectory
        assert episode.stripped is trajectory.memory is bool(trajectory.shown)
        assert not any(step.blocked_by for step in trajectory.steps), "guardrails are not enforced"
        flat = flatten(episode)
        assert flat.prompt_ids + flat.completion_ids == encoder.episode(trajectory, experiences=False).ids
        assert "zebra" not in tokenizer.decode(flat.prompt_ids)
        played = [token for step in trajectory.steps for token in step.tokens.sampled]
        assert [token for turn in episode.turns for token in turn.sampled] == played
    assert rollouts.figures[0].keys() >= {"success", "success_with_memory"}
    again = Rollouts(stage, context, tokenizer)(tasks, model)
    assert [episode.turns for episode in again] == [episode.turns for episode in episodes]


def test_the_arms_are_reported_apart(stage_context, tiny):
    model, tokenizer = tiny
    context = with_memory(stage_context())
    stage = STAGE.model_copy(update={"with_memory": 0.5})
    episodes = Rollouts(stage, context, tokenizer)(tasks_of_a_batch(context), model)
    won = [
        replace(item, trajectory=item.trajectory.model_copy(update={"ending": Ending.SOLVED}))
        if item.stripped
        else item
        for item in episodes
    ]
    values = figures(won, stage.group_size)
    assert (values["success"], values["success_with_memory"]) == (0.0, 1.0)


def test_what_is_shown_is_withdrawn_over_the_stage(stage_context, tiny):
    model, tokenizer = tiny
    context = with_memory(stage_context())
    shown = {}
    for iterations, withdraw in ((1, True), (2, True), (1, False)):
        changes = {"steps": 6, "iterations": iterations, "with_memory": 1.0, "withdraw": withdraw}
        rollouts = Rollouts(STAGE.model_copy(update=changes), context, tokenizer)
        batches = [rollouts(tasks_of_a_batch(context)[:2], model) for _ in range(6 // iterations)]
        shown[iterations, withdraw] = [all(item.trajectory.memory for item in batch) for batch in batches]
    assert shown[1, True] == [True] * 4 + [False] * 2
    assert shown[2, True] == [True, True, False]
    assert shown[1, False] == [True] * 6


def test_a_stage_that_goes_on_plays_what_it_would_have_played(stage_context, tiny):
    model, tokenizer = tiny
    context = replace(with_memory(stage_context()), tasks=Toy.tasks(Split.TRAIN, count=6))
    stage = STAGE.model_copy(update={"steps": 4, "curriculum": "paced", "with_memory": 0.5})
    whole = Rollouts(stage, context, tokenizer)
    played, states = [], []
    for _ in range(4):
        played.append([episode.turns for episode in whole(tasks_of_a_batch(context), model)])
        states.append(json.dumps(whole.state()))
    resumed = Rollouts(stage, context, tokenizer)
    resumed.load(json.loads(states[1]))
    assert [[e.turns for e in resumed(tasks_of_a_batch(context), model)] for _ in range(2)] == played[2:]
    assert json.loads(json.dumps(resumed.state()))["curriculum"] == json.loads(states[3])["curriculum"]
    assert len(resumed.figures) == 4
    groups = [episodes[0].trajectory.task == episodes[1].trajectory.task for episodes in whole.batches]
    assert all(groups)
    assert {item.trajectory.task.id for item in whole.batches[0]} != {task.id for task in tasks_of_a_batch(context)}
