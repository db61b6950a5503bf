"""Rollouts of a training stage: whole episodes in real environments, token for token as they were sampled.

What the student learns to do, it does without its experiences: memory is off, or some episodes of a group are shown
experiences (`with_memory`) and trained on as if they had not been (`training.stripping`). The reward is 1 for a
solved task and 0 otherwise, minus a small penalty per invalid action; success is always reported without that shaping.

An episode that grows too long for another reply ends there as a policy error. It is a failure like any other: its turns
carry loss. An episode that broke (the environment failed, or the task alone leaves no room for a reply) tells nothing
about the student: it carries no loss, and its reward is the mean of its group, so that nobody's advantage moves.
"""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from random import Random
from statistics import fmean
from typing import Any

from transformers import PreTrainedTokenizerBase

from tutelage.agents.graph import run_episodes
from tutelage.agents.seeds import stable_seed
from tutelage.experience import Recaller
from tutelage.stage_config import RolloutStageConfig
from tutelage.training import ranks
from tutelage.training.base import StageContext
from tutelage.training.chat import ChatEncoder
from tutelage.training.curriculum import Curriculum
from tutelage.training.engines import Sampler, sampler
from tutelage.training.stripping import rescored, stripped
from tutelage.training.weights import compute_dtype
from tutelage.training.withdrawal import measured_gains, memory_at, ranking
from tutelage.types import Cause, Ending, Policy, Split, Task, Tokens, Trajectory

INVALID = frozenset({Cause.INVALID_ACTION, Cause.UNKNOWN_TARGET})


@dataclass(frozen=True)
class Episode:
    """A finished rollout as a trainer needs it."""

    trajectory: Trajectory
    turns: tuple[Tokens, ...]
    """As trained on. Never empty; a broken episode without a turn has a placeholder that carries no loss."""
    reward: float
    """Shaped; the group's mean if the episode broke."""
    broken: bool
    stripped: bool = False
    """Whether it was shown experiences, which `turns` lack; its log-probabilities are those without them."""

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
    """Runs a stage's episodes, batch after batch, and keeps them until the stage is over."""

    def __init__(self, stage: RolloutStageConfig, context: StageContext, tokenizer: PreTrainedTokenizerBase) -> None:
        assert context.make_environment is not None, "a stage with rollouts needs an environment"
        self.stage, self._context, self._tokenizer = stage, context, tokenizer
        self._make_environment = context.make_environment
        self._name = stage.type
        self._batches = -(-stage.steps // getattr(stage, "iterations", 1))
        self._sampler: Sampler | None = None
        self._curriculum = self._new_curriculum() if stage.curriculum == "paced" else None
        self._ranked = self._ranking() if stage.with_memory and stage.withdraw else None
        self._before = 0
        self.batches: list[list[Episode]] = []
        """The episodes that this process played, by batch; after `load`, those since then."""
        self.figures: list[dict[str, float]] = []
        """One per batch of the whole stage, over all processes: success, reward, invalid_rate, turns, …"""

        self.used: dict[str, None] = {}
        """Ids of the experiences that episodes were shown, of all processes, in the order of first use."""

    @property
    def played(self) -> int:
        """How many batches the stage has had so far."""
        return self._before + len(self.batches)

    def __call__(self, tasks: Sequence[Task], model: Any) -> list[Episode]:
        """One episode per task, in order; the members of a group are adjacent and share their task.

        Args:
            tasks: what is played, unless the stage's curriculum chooses: then only their number counts.
            model: the student as it is now, unwrapped.
        """
        started, batch, size = time.monotonic(), self.played, self.stage.group_size
        every, at = ranks.everyone(tasks), ranks.place(tasks)
        if self._curriculum is not None:
            every = [task for task in self._curriculum.draw(batch, len(every) // size) for _ in range(size)]
        policy = self.policy(model, f"{self._name}.{batch}", self.stage.temperature)
        trajectories = self._play(every, range(at, at + len(tasks)), policy, batch)
        episodes = self._episodes(trajectories, at, model)
        played = ranks.everyone(episodes)
        if self._curriculum is not None:
            self._curriculum.saw(item.trajectory for item in played if not item.broken)
        self.used |= dict.fromkeys(shown.id for item in played for shown in item.trajectory.shown)
        self.batches.append(episodes)
        self.figures.append(figures(played, size) | {"rollout_seconds": time.monotonic() - started})
        return episodes

    def policy(self, model: Any, what: str, temperature: float) -> Policy:
        """The student as it is now; until it is asked for again, as there is one copy to sample with.

        Args:
            what: it plays for, as its label says.
        """
        if self._sampler is None:
            self._sampler = sampler(self._context.config.student, self._context.start, self._tokenizer)
        return self._sampler(model, label=f"{self._context.student.label}+{what}", temperature=temperature)

    def state(self) -> dict[str, Any]:
        """What `load` takes, as JSON; the episodes themselves are not in it."""
        curriculum = self._curriculum.state() if self._curriculum is not None else None
        return {
            "batches": self.played,
            "figures": self.figures,
            "curriculum": curriculum,
            "used": list(self.used),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on behind the batches of `state`, as if they had been played here."""
        self._before, self.batches = int(state["batches"]), []
        self.figures = [dict(values) for values in state["figures"]]
        self.used = dict.fromkeys(state["used"])
        if self._curriculum is not None:
            self._curriculum.load(state["curriculum"])

    def _play(self, tasks: Sequence[Task], mine: range, policy: Policy, batch: int) -> list[Trajectory]:
        """The episodes at the places `mine` of the whole batch: first those without memory, then those with it."""
        seed, memory = self._context.seed * 1_000_003 + batch, self._memory(batch)
        shown = self._chosen(len(tasks), batch) if memory is not None else frozenset[int]()
        found: dict[int, Trajectory] = {}
        arms = [(None, seed), (memory, stable_seed(seed, "with memory"))]
        for recaller, own in arms if memory is not None else arms[:1]:
            arm = [place for place in range(len(tasks)) if (place in shown) is (recaller is not None)]
            if places := [place for place in arm if place in mine]:
                played = run_episodes(
                    [tasks[place] for place in places],
                    policy,
                    self._make_environment,
                    act=self._context.config.act,
                    memory=recaller,
                    seed=own,
                    begun=Counter(tasks[place].id for place in arm if place < mine.start),
                )
                found |= zip(places, played, strict=True)
        return [found[place] for place in mine]

    def _memory(self, batch: int) -> Recaller | None:
        """What the episodes with memory are shown in this batch; None if there are none."""
        memory = self._context.memory if self.stage.with_memory else None
        return None if memory is None else memory_at(memory, self._ranked, batch, self._batches)

    def _chosen(self, count: int, batch: int) -> frozenset[int]:
        """Places of the episodes with memory, the same number in each group."""
        size = self.stage.group_size
        shown = round(self.stage.with_memory * size)
        return frozenset(
            first + place
            for first in range(0, count, size)
            for place in Random(stable_seed(self._context.seed, batch, first)).sample(range(size), shown)
        )

    def _episodes(self, trajectories: Sequence[Trajectory], at: int, model: Any) -> list[Episode]:
        """Of those that stand at place `at` of the whole batch on; a group's other members may be another process's."""
        size, end = self.stage.group_size, int(self._tokenizer.eos_token_id)
        rewards = [None if broke(item) else shaped_reward(item, self.stage) for item in trajectories]
        every = ranks.everyone(rewards)
        episodes = []
        for place, (trajectory, reward) in enumerate(zip(trajectories, rewards, strict=True), start=at):
            group = every[place - place % size :][:size]
            neutral = _mean([other for other in group if other is not None])
            own = self._turns(trajectory, end, model)
            counted = neutral if reward is None else reward
            episodes.append(Episode(trajectory, own, counted, reward is None, stripped=bool(trajectory.shown)))
        return episodes

    def _turns(self, trajectory: Trajectory, placeholder: int, model: Any) -> tuple[Tokens, ...]:
        """As trained on: without the experiences that were shown, if there were any."""
        sampled = turns(trajectory, placeholder=placeholder)
        if broke(trajectory) or not trajectory.shown:
            return sampled
        dtype = compute_dtype(self._context.config.student.dtype)
        plain = stripped(trajectory, sampled, ChatEncoder(self._tokenizer))
        return rescored(plain, model, temperature=self.stage.temperature, dtype=dtype)

    def _new_curriculum(self) -> Curriculum:
        label = self._context.student.label
        before = self._context.record.trajectories(split=Split.TRAIN)
        # "student@3 (SmolLM2-135M-Instruct)", but not "student@3+grpo.0", which are rollouts by other weights.
        mine = [item for item in before if item.policy.split(" ")[0] == label and not broke(item)]
        return Curriculum(self.stage, self._context.tasks, mine, seed=self._context.seed)

    def _ranking(self) -> list[str]:
        experiences = self._context.experiences
        return ranking(experiences, measured_gains(self._context.record, experiences))


def broke(trajectory: Trajectory) -> bool:
    """Whether an episode tells nothing about the student."""
    return trajectory.ending is Ending.ENVIRONMENT_ERROR or (
        trajectory.ending is Ending.POLICY_ERROR and not trajectory.steps
    )


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


def varied(group: Sequence[Episode]) -> bool:
    """Whether the episodes of a group earned different rewards, so that there is something to learn from them."""
    return len({episode.reward for episode in group if not episode.broken}) > 1


def taught(episodes: Sequence[Episode], stage: RolloutStageConfig) -> list[bool]:
    """Which episodes of a whole batch carry loss: none that broke and, where the stage leaves out groups without
    variance (`GrpoConfig.skip_equal`), none of such a group."""
    size, skips = stage.group_size, getattr(stage, "skip_equal", False)
    groups = [episodes[first : first + size] for first in range(0, len(episodes), size)]
    return [(not skips or varied(group)) and not episode.broken for group in groups for episode in group]


def figures(episodes: Sequence[Episode], group_size: int) -> dict[str, float]:
    """What a batch of rollouts says about the student; broken episodes only count as such.

    ``success`` is that of episodes without memory (of ``tasks`` tasks), as long as there are any, and
    ``success_with_memory`` that of the others. What is not a success rate is over both.
    """
    whole = [episode for episode in episodes if not episode.broken]
    trajectories = [episode.trajectory for episode in whole]
    steps = list(chain.from_iterable(trajectory.steps for trajectory in trajectories))
    groups = [episodes[first : first + group_size] for first in range(0, len(episodes), group_size)]
    success = [float(trajectory.success) for trajectory in trajectories]
    alone = [float(item.success) for item in trajectories if not item.memory]
    together = [float(item.success) for item in trajectories if item.memory]
    return {
        "success": _mean(alone or together),
        **({"success_with_memory": _mean(together)} if together else {}),
        "tasks": float(sum(any(not e.broken and not e.trajectory.memory for e in group) for group in groups)),
        "reward": _mean([episode.reward for episode in whole]),
        "shaping": _mean([episode.reward - won for episode, won in zip(whole, success, strict=True)]),
        "invalid_rate": _mean([float(step.diagnosis.cause in INVALID) for step in steps]),
        "turns": _mean([float(len(trajectory.steps)) for trajectory in trajectories]),
        "sampled_tokens": _mean([float(episode.sampled) for episode in whole]),
        "groups_with_variance": _mean([float(varied(group)) for group in groups]),
        "broken": 1 - len(whole) / len(episodes),
    }


def _mean(values: Sequence[float]) -> float:
    return fmean(values) if values else 0.0
