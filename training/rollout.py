"""Rollouts of a training stage: whole episodes in real environments, token for token as they were sampled.

Memory is off: what the student learns to do, it does without its experiences. The reward is 1 for a
solved task and 0 otherwise, minus a small penalty per invalid action; success is always reported
without that shaping. An episode that broke tells nothing about the student: it carries no loss, and its
reward is the mean of its group, so that nobody's advantage moves.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from statistics import fmean
from typing import Any

from transformers import PreTrainedTokenizerBase

from tutelage.agents.graph import run_episodes
from tutelage.config import RolloutStageConfig
from tutelage.training.base import StageContext
from tutelage.training.policy import StudentPolicy, copy_weights, generation_copy
from tutelage.training.weights import compute_dtype
from tutelage.types import BROKEN, Cause, Task, Tokens, Trajectory

INVALID = frozenset({Cause.INVALID_ACTION, Cause.UNKNOWN_TARGET})


@dataclass(frozen=True)
class Episode:
    """A finished rollout as a trainer needs it."""

    trajectory: Trajectory
    turns: tuple[Tokens, ...]
    """Never empty; a broken episode without a turn has a placeholder that carries no loss."""
    reward: float
    """Shaped; the group's mean if the episode broke."""
    broken: bool

    @property
    def sampled(self) -> int:
        return sum(len(turn.sampled) for turn in self.turns)


@dataclass(frozen=True)
class Flat:
    """An episode as one sequence: everything before the first sampled token, and the rest."""

    prompt_ids: list[int]
    completion_ids: list[int]
    mask: list[int]
    """1 where the token of `completion_ids` was sampled and carries loss."""
    logprobs: list[float]
    """Of the sampled tokens, at the sampling temperature; 0 elsewhere."""


class Rollouts:
    """Runs a stage's episodes, one batch per optimiser step, and keeps them until the stage is over."""

    def __init__(self, stage: RolloutStageConfig, context: StageContext, tokenizer: PreTrainedTokenizerBase) -> None:
        assert context.make_environment is not None, "a stage with rollouts needs an environment"
        self._stage, self._context, self._tokenizer = stage, context, tokenizer
        self._make_environment = context.make_environment
        self._name = str(getattr(stage, "type", "rollout"))
        self._sampler: Any = None
        self.batches: list[list[Episode]] = []
        self.figures: list[dict[str, float]] = []
        """One per batch: success, reward, shaping, invalid_rate, turns, …"""

    def __call__(self, tasks: Sequence[Task], model: Any) -> list[Episode]:
        """One episode per task, in order; the members of a group are adjacent and share their task.

        Args:
            model: the student as it is now, unwrapped.
        """
        started = time.monotonic()
        step, student = len(self.batches), self._context.config.student
        if self._sampler is None:
            self._sampler = generation_copy(model, compute_dtype(student.dtype))
        copy_weights(model, self._sampler)
        policy = StudentPolicy(
            self._sampler,
            self._tokenizer,
            label=f"{self._context.student.label}+{self._name}.{step}",
            temperature=self._stage.temperature,
            max_new_tokens=student.max_new_tokens,
            max_length=student.max_length,
        )
        trajectories = run_episodes(
            tasks,
            policy,
            self._make_environment,
            act=self._context.config.act,
            seed=self._context.seed * 1_000_003 + step,
        )
        episodes = self._episodes(trajectories)
        self.batches.append(episodes)
        self.figures.append(figures(episodes, self._stage.group_size) | {"rollout_seconds": time.monotonic() - started})
        return episodes

    def _episodes(self, trajectories: Sequence[Trajectory]) -> list[Episode]:
        size, end = self._stage.group_size, int(self._tokenizer.eos_token_id)
        episodes: list[Episode] = []
        for first in range(0, len(trajectories), size):
            group = trajectories[first : first + size]
            rewards = {t.id: shaped_reward(t, self._stage) for t in group if t.ending not in BROKEN}
            neutral = fmean(rewards.values()) if rewards else 0.0
            episodes += [
                Episode(t, turns(t, placeholder=end), rewards.get(t.id, neutral), t.id not in rewards) for t in group
            ]
        return episodes


def shaped_reward(trajectory: Trajectory, stage: RolloutStageConfig) -> float:
    """1 if solved, else what partial credit there is; minus the penalty per invalid action."""
    credit = trajectory.steps[-1].credit if trajectory.steps else 0.0
    reached = 1.0 if trajectory.success else stage.partial_credit * credit
    return reached - stage.invalid_penalty * invalid_actions(trajectory)


def invalid_actions(trajectory: Trajectory) -> int:
    return sum(step.diagnosis.cause in INVALID for step in trajectory.steps)


def turns(trajectory: Trajectory, *, placeholder: int) -> tuple[Tokens, ...]:
    """The tokens of each step that has any sampled; one made of `placeholder` if there is none.

    Raises:
        ValueError: a step has no tokens, so the policy was not one that can be trained.
    """
    if any(step.tokens is None for step in trajectory.steps):
        raise ValueError(f"{trajectory.id}: {trajectory.policy} does not report the tokens it samples")
    sampled = tuple(step.tokens for step in trajectory.steps if step.tokens is not None)
    return sampled or (Tokens(prompt=(placeholder,), sampled=(placeholder,), logprobs=(0.0,)),)


def flatten(episode: Episode) -> Flat:
    """One sequence of the tokens as sampled; what the environment showed after the last action is left out."""
    first, *later = episode.turns
    flat = Flat(list(first.prompt), [], [], [])
    for observation, turn in [((), first), *((turn.prompt, turn) for turn in later)]:
        flat.completion_ids.extend([*observation, *turn.sampled])
        flat.mask.extend([0] * len(observation) + [int(not episode.broken)] * len(turn.sampled))
        flat.logprobs.extend([0.0] * len(observation) + list(turn.logprobs))
    return flat


def figures(episodes: Sequence[Episode], group_size: int) -> dict[str, float]:
    """What a batch of rollouts says about the student; broken episodes only count as such."""
    whole = [episode for episode in episodes if not episode.broken]
    trajectories = [episode.trajectory for episode in whole]
    steps = list(chain.from_iterable(trajectory.steps for trajectory in trajectories))
    groups = [episodes[first : first + group_size] for first in range(0, len(episodes), group_size)]
    success = [float(trajectory.success) for trajectory in trajectories]
    return {
        "success": _mean(success),
        "reward": _mean([episode.reward for episode in whole]),
        "shaping": _mean([episode.reward - won for episode, won in zip(whole, success, strict=True)]),
        "invalid_rate": _mean([float(step.diagnosis.cause in INVALID) for step in steps]),
        "turns": _mean([float(len(trajectory.steps)) for trajectory in trajectories]),
        "sampled_tokens": _mean([float(episode.sampled) for episode in whole]),
        "groups_with_variance": _mean([float(len({episode.reward for episode in group}) > 1) for group in groups]),
        "broken": 1 - len(whole) / len(episodes),
    }


def _mean(values: Sequence[float]) -> float:
    return fmean(values) if values else 0.0
