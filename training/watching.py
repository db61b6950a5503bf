"""What a stage that learns from its own rollouts does after every optimiser step: figures, alarms, checkpoints.

The order is: take down the step's figures, look for alarms, keep what was good or go back to it, write a checkpoint. A
checkpoint is one file that is replaced whole, and the rollouts before it are in the record by then; so a stage killed
anywhere goes on from the last one and, as all that is random is seeded, comes to the same student.
"""

import math
import shutil
import time
from collections.abc import Mapping
from statistics import fmean
from typing import Any, Protocol

import torch
from torch.nn.utils import get_total_norm
from transformers import Trainer, TrainerCallback

from tutelage.results import AlarmDoc, save
from tutelage.training import checkpoints, ranks
from tutelage.training.alarms import ALARMS, Alarm, Watch
from tutelage.training.base import StageContext, identity, time_is_up
from tutelage.training.brakes import START, Brakes
from tutelage.training.decline import BATCHES
from tutelage.training.learnt import Learnt
from tutelage.training.probe import drift, probe, probe_tasks
from tutelage.training.rollout import Episode, Rollouts

KEPT = {
    "loss": "loss",
    "grad_norm": "grad_norm",
    "learning_rate": "learning_rate",
    "kl": "kl",
    "self_distillation/policy_loss": "policy_loss",
    "self_distillation/distillation_loss": "distillation_loss",
    "self_distillation/informed_token_fraction": "informed_tokens",
    "self_distillation/gap": "gap",
}
"""TRL's names of the figures that are kept → ours."""
CHECKPOINT = "checkpoint.pt"


class Stateful(Protocol):
    """A part of a stage that remembers something between batches."""

    def state(self) -> dict[str, Any]:
        """What `load` takes; JSON."""

    def load(self, state: dict[str, Any]) -> None:
        """Go on as when `state` was taken."""


class Figures(TrainerCallback):
    """Figures of every optimiser step, progress, alarms and checkpoints of one stage.

    Args:
        what: the stage's name.
        parts: what else of the stage has to be in a checkpoint, by name.
    """

    def __init__(
        self, rollouts: Rollouts, context: StageContext, what: str, parts: Mapping[str, Stateful] | None = None
    ) -> None:
        self.rollouts, self.context, self.what = rollouts, context, what
        self.stage = rollouts.stage
        self.parts: dict[str, Stateful] = {"rollouts": rollouts, **(parts or {})}
        self.history: list[dict[str, float]] = []
        self.stopped: Alarm | None = None
        """The alarm that ended the run, if one did."""
        self.begun: dict[str, float] = {}
        """Figures of the starting weights."""
        self.learnt = Learnt(rollouts, context, what)
        alarms = self.stage.alarms
        settings = [getattr(alarms, name) for name in ALARMS]
        families = len({(task.environment, task.family) for task in context.tasks})
        self.watch = Watch(alarms, max(BATCHES, -(-families * self.stage.group_size // self.stage.batch_size)))
        self.brakes = Brakes(
            context.checkpoints, whole=any(item.action == "restore" for item in settings), writes=ranks.rank() == 0
        )
        self._restored = 0
        self._seen = 0
        self._checkpoint = self.brakes.steps()
        self._random: Mapping[str, Any] | None = None
        self._seconds = 0.0
        watched = alarms.probe.action != "off"
        self._probes = probe_tasks(context, alarms.probe_tasks) if alarms.probe_tasks and watched else []

    # -- the trainer's events -------------------------------------------------------------------

    def attach(self, trainer: Trainer) -> None:
        """Before training: take up the last checkpoint, if there is one."""
        self.trainer = trainer
        self._state = self._read()
        if self._state is not None:
            mine = self._state["figures"]
            self.history, self.begun, self._restored = mine["history"], mine["begun"], mine["restored"]
            self.learnt.load(mine)
            self.watch.load(mine["watch"])
            self.brakes.load(mine["brakes"])
            self._checkpoint = self.brakes.steps()
            for name, part in self.parts.items():
                part.load(self._state["parts"][name])
            self._seen = self.rollouts.played
            # By steps: after going back within a batch's iterations, another one is made of the same rows.
            batches = self._state["step"] // getattr(self.stage, "iterations", 1)
            used = batches * self.stage.batch_size // self.stage.group_size
            rows: Any = trainer.train_dataset
            trainer.train_dataset = rows.select(range(used, len(rows)))

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._state is not None:
            checkpoints.put_back(self.trainer, self._state["training"])
            self._scheduler.load_state_dict(self._state["scheduler"])
            checkpoints.continue_at(self.trainer, self._state["step"])
            self._random, self._state = self._state["random"][ranks.rank()], None
        else:
            self.brakes.begin(self.trainer)
            if self._probes:
                self.begun = self._probe()
                self.watch.look(self.begun)

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._random is not None:  # only now: setting up the first batch draws numbers that going on does not
            checkpoints.put_back_random(self._random)
            self._random = None
        self._began = time.monotonic()

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Without a gradient no parameter moves: what is not finite is kept from the weights, and where a batch had
        nothing to learn from they stay as they are, instead of being moved on by the optimiser's momentum."""
        gradients = [item.grad for item in self._model.parameters() if item.grad is not None]
        norm = get_total_norm(gradients) if gradients else torch.zeros(())
        if not norm.isfinite() or not norm:
            self._model.zero_grad(set_to_none=True)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._seconds = time.monotonic() - self._began
        self.context.progress(self.what, state.global_step, state.max_steps)

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **_: Any) -> None:
        if logs is None or "loss" not in logs:  # the summary at the end
            return
        began, step, fresh = time.monotonic(), state.global_step, self.rollouts.played > self._seen
        self._seen = self.rollouts.played
        self.learnt.note(step)
        values = self._figures(logs, fresh)
        last = step == state.max_steps or time_is_up(
            self.stage, [item["step_seconds"] for item in (*self.history, values)]
        )
        due = self._probes and (step % self.stage.alarms.probe_every == 0 or last)
        if due:
            values |= self._probe()
        self.history.append(values)
        alarm = self.watch.look(values)
        if alarm is not None:
            self._brake(alarm, step, control)
        elif self.watch.suspects:
            self.brakes.reject()
        elif fresh:
            self.brakes.confirm()
        values["watch_seconds"] = time.monotonic() - began
        if alarm is None and last:
            control.should_training_stop = True
        elif alarm is None and not control.should_training_stop:
            # A batch of hard tasks says less about success than a probe that was passed.
            self._save(step, proven="probe" in values and not self.watch.suspects.keys() - {"success"})
            values["watch_seconds"] = time.monotonic() - began  # with the writing, which a checkpoint cannot know yet

    # -- the rest -------------------------------------------------------------------------------

    def _figures(self, logs: Mapping[str, Any], fresh: bool) -> dict[str, float]:
        """The step's figures, over all processes; those of its rollouts if there were any."""
        values = {ours: _number(logs[theirs]) for theirs, ours in KEPT.items() if theirs in logs}
        values |= {"step_seconds": self._seconds, "train_seconds": self._seconds}
        if fresh:
            values = dict(self.rollouts.figures[-1]) | values
            values["train_seconds"] -= values["rollout_seconds"]
            batch = self.rollouts.batches[-1]
            values |= _entropies(batch)
            if "kl" not in values and self.stage.alarms.kl.action != "off":
                model = self.trainer.accelerator.unwrap_model(self.trainer.model)
                found = drift(batch, self.stage.group_size, self.context, model, self.stage.temperature)
                values |= {} if found is None else {"kl": found}
        every = ranks.everyone([values])
        names = dict.fromkeys(name for part in every for name in part)
        return {name: fmean(part[name] for part in every if name in part) for name in names}

    @property
    def _model(self) -> Any:
        return self.trainer.model

    @property
    def _scheduler(self) -> Any:
        return self.trainer.lr_scheduler

    def _probe(self) -> dict[str, float]:
        """The probe's figure; none if all of its episodes broke."""
        model = self.trainer.accelerator.unwrap_model(self.trainer.model)
        found = ranks.first(lambda: probe(self._probes, self.context, self.rollouts.policy(model, "probe", 0.0)))
        return {} if found is None else {"probe": found}

    def _brake(self, alarm: Alarm, step: int, control: Any) -> None:
        """Stop, or go back and go on; and say so in the record."""
        self.history[-1][f"alarm/{alarm.name}"] = 1.0
        again = alarm.action == "restore" and self._restored < self.stage.alarms.restores
        after = "the starting weights" if self.brakes.good == START else f"the weights after step {self.brakes.good}"
        done = f"went back to {after}" if again else f"stopped with {after}"
        text = f"{self.what} step {step}: {alarm.why}: {done}"
        if ranks.rank() == 0:
            event = AlarmDoc(
                cycle=self.context.cycle,
                stage=self.what,
                student=self.context.number,
                step=step,
                alarm=alarm.name,
                action="restore" if again else "stop",
                good=self.brakes.good,
                text=text,
            )
            save(self.context.record, event)
        self.learnt.go_back(self.brakes.good)
        if again:
            self._restored += 1
            self.brakes.go_back(self.trainer)
            self.watch.calm()
        else:
            self.stopped = alarm
            control.should_training_stop = True

    def _save(self, step: int, *, proven: bool) -> None:
        """Keep the weights as what may turn out good, and from time to time everything."""
        if step % getattr(self.stage, "iterations", 1):
            return  # in the middle of a batch of rollouts
        if proven or not self._probes:
            self.brakes.offer(self.trainer, step, proven=proven)
        if step % self.stage.checkpoint_every == 0:
            self._checkpoint = self.brakes.steps()
            self.learnt.keep()
            everything = self._everything(step)
            if ranks.rank() == 0:
                checkpoints.write(self.context.checkpoints / CHECKPOINT, everything)
        self.brakes.prune(self._checkpoint | self.brakes.steps())

    def _everything(self, step: int) -> dict[str, Any]:
        return {
            "of": identity(self.stage, self.context),
            "step": step,
            "training": checkpoints.training(self.trainer),
            "scheduler": self._scheduler.state_dict(),
            "random": ranks.everyone([checkpoints.random_state()]),
            "parts": {name: part.state() for name, part in self.parts.items()},
            "figures": {
                "history": self.history,
                "begun": self.begun,
                "restored": self._restored,
                **self.learnt.state(),
                "watch": self.watch.state(),
                "brakes": self.brakes.state(),
            },
        }

    def _read(self) -> dict[str, Any] | None:
        """The last checkpoint; one of other settings is of no use and is removed."""
        file = self.context.checkpoints / CHECKPOINT

        def usable() -> bool:
            if file.is_file() and checkpoints.read(file)["of"] == identity(self.stage, self.context):
                return True
            shutil.rmtree(self.context.checkpoints, ignore_errors=True)
            return False

        return checkpoints.read(file) if ranks.first(usable) else None


def _entropies(batch: list[Episode]) -> dict[str, float]:
    """Mean of −log p per sampled token, which estimates the entropy: of all episodes, and of those that failed.

    The alarm looks at the second: who knows a task by heart has no entropy left in it, and has not collapsed. TRL's own
    figure is of what carries loss, which may be nothing.
    """
    found: dict[str, list[float]] = {"entropy": [], "entropy_failed": []}
    for episode in batch:
        if not episode.broken:
            values = [-value for turn in episode.turns for value in turn.logprobs]
            found["entropy"] += values
            found["entropy_failed"] += [] if episode.trajectory.success else values
    return {name: fmean(values) for name, values in found.items() if values}


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
