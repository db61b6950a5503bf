"""On-policy distillation: the student acts, and a better local model says how it would have gone on at each token.

Source: On-Policy Distillation of Language Models (GKD, 2306.13649) through `trl.DistillationTrainer`. The
student plays whole episodes; the teacher re-scores the student's own sampled tokens, seeing exactly what
the student saw; the loss is the mean generalised Jensen–Shannon divergence of their full next-token
distributions over all sampled tokens of the batch, observations excluded. Settings and departures:

* always on-policy (GKD mixes in a share of the teacher's own replies; ours come earlier, in the sft stage);
* alpha 0.5 (GKD finds that the best divergence depends on the task; TRL's default is reverse KL);
* both at temperature 1, as in GKD and TRL;
* multi-turn episodes in real environments (TRL: one completion behind one prompt);
* no reward takes part: success is reported and nothing else. An episode that broke carries no loss;
* the teacher must be the one behind the fine-tuning data (`training.whitebox`).
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl import DistillationConfig as TrlConfig
from trl import DistillationTrainer
from trl.trainer.utils import RepeatSampler

from tutelage.stage_config import DistillConfig
from tutelage.training import ranks, weights
from tutelage.training.base import StageContext, StageResult, load_start, lora
from tutelage.training.online import Figures, finish, settings, task_of, task_rows, train
from tutelage.training.rollout import Rollouts, flatten
from tutelage.training.whitebox import WhiteBox, check_tokenizers, find_teacher, fit_vocabulary, tokenizer_digest

OVERRIDDEN = ("_generate", "_get_last_hidden_state", "_get_train_sampler")
REWARDS_ONLY = ("num_generations", "scale_rewards")
"""Settings of the stages that learn from rewards."""
TEACHER = "white_box_teacher"
"""Kind of the record's documents on what was distilled from; their key is ``CYCLE/STUDENT``."""


def run(stage: DistillConfig, context: StageContext) -> StageResult:
    """Train the student towards the teacher; one batch of rollouts per optimiser step.

    Raises:
        ConfigError: the teacher is not known, has another tokenizer or did not make the fine-tuning data.
        MissingPart: weights are not here.
    """
    found = find_teacher(stage, context)
    model, tokenizer = load_start(context)
    teacher, its_tokenizer = weights.load(found.weights, dtype=weights.compute_dtype(context.config.student.dtype))
    check_tokenizers(tokenizer, its_tokenizer, found.label)
    _keep_identity(found, teacher, its_tokenizer, context)
    fit_vocabulary(teacher, model.config.get_text_config().vocab_size, len(tokenizer))
    rollouts = Rollouts(stage, context, tokenizer)
    trainer = make_trainer(stage, context, model, tokenizer, rollouts, teacher)
    figures = Figures(rollouts, context, stage.type)
    train(trainer, figures)
    return finish(trainer, tokenizer, figures, experiences=tuple(rollouts.used))


class EpisodeDistillationTrainer(DistillationTrainer):
    """`DistillationTrainer` whose completions are episodes from `rollouts`."""

    def __init__(self, *, rollouts: Rollouts, group_size: int, **kwargs: Any) -> None:
        self.rollouts, self.group_size = rollouts, group_size
        super().__init__(**kwargs)

    def _get_train_sampler(self, dataset: Any = None) -> RepeatSampler:
        """Rows are groups here, as for the trainers that compare their members; each comes `group_size` times."""
        args, rows = self.args, cast(Dataset, self.train_dataset)
        episodes = args.per_device_train_batch_size * args.gradient_accumulation_steps * self.accelerator.num_processes
        return RepeatSampler(
            data_source=rows,
            mini_repeat_count=self.group_size,
            batch_size=episodes // self.group_size,
            repeat_count=args.gradient_accumulation_steps,
            shuffle=False,
            seed=args.seed,
        )

    def _generate(
        self, prompts: Sequence[Any]
    ) -> tuple[list[list[int]], list[list[int]], list[list[int]], None, list[Any]]:
        """Prompt ids, completion ids, which of those were sampled, and no images; one of each per prompt."""
        episodes = self.rollouts([task_of(prompt) for prompt in prompts], self.accelerator.unwrap_model(self.model))
        flat = [flatten(episode) for episode in episodes]
        return (
            [item.prompt_ids for item in flat],
            [item.completion_ids for item in flat],
            [item.mask for item in flat],
            None,
            [],
        )

    def _get_last_hidden_state(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """In the compute type: TRL goes around the forward that Accelerate has put its autocast into."""
        with self.accelerator.autocast():
            hidden: torch.Tensor = super()._get_last_hidden_state(*args, **kwargs)
        return hidden


def make_trainer(
    stage: DistillConfig,
    context: StageContext,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rollouts: Rollouts,
    teacher: PreTrainedModel,
) -> EpisodeDistillationTrainer:
    """TRL's trainer over `rollouts`, re-scored by `teacher`."""
    shared = {name: value for name, value in settings(stage, context).items() if name not in REWARDS_ONLY}
    return EpisodeDistillationTrainer(
        rollouts=rollouts,
        group_size=stage.group_size,
        model=model,
        teacher_model=teacher,
        args=TrlConfig(beta=stage.alpha, **shared),
        train_dataset=task_rows(stage, context.tasks),
        processing_class=tokenizer,
        peft_config=lora(context),
    )


def _keep_identity(
    found: WhiteBox, teacher: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, context: StageContext
) -> None:
    """Put on record what is distilled from, so that a student's teacher can be told from the record alone."""
    body = {
        "teacher": found.label,
        "weights": found.weights,
        "digest": weights.digest(teacher),
        "dtype": str(teacher.dtype).removeprefix("torch."),
        "tokenizer": tokenizer_digest(tokenizer),
        "fine_tuned_on": dict(found.makers),
    }
    ranks.first(lambda: context.record.put(TEACHER, f"{context.cycle}/{context.number}", body))
