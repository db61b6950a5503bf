"""SDPO on whole episodes: the student learns from itself, told what it could not know.

Source: Self-Distillation Policy Optimization (2601.20802) through `trl.experimental.sdpo`, extended to
many turns (`training.sdpo_trainer`). The self-teacher is the same model re-scoring the student's own
sampled tokens with privileged text in its observations (`training.privileged`).

As in the paper: top-k of 20 with a tail bucket, ratio clipped at 2, teacher a moving average at 0.05, a
lone success teaches nothing to itself, observations carry no loss. As in its shipped recipes without
feedback: alpha 0.5 (1.0 with feedback).

Departures, and why: feedback is used beside a sibling, not only without one (its ablation finds both
together best); recalled experiences come on top, as in Skill-SD (2604.10674) and SDAR (2605.15155),
since moving them into the weights is the point; half of the loss is GRPO's (the paper's hybrid has 0.9
of it), since a weak student is a weak teacher; lr 2e-6 lies between the paper's 1e-6 and 1e-5; batches
are small, for a CPU. One teacher sequence holds the notes of all turns, so a turn also sees the notes of
those before it. With LoRA the teacher's factors are averaged separately, from the student's own start
(TRL: from zero, where their product lags by the square of the rate).

Gates, off by default. ``failures`` is SRPO's routing (2604.02288): episodes that won learn by GRPO's loss
alone and those that failed by the self-teacher alone, unless it was told nothing about them. Every episode
keeps the weight that it has without the gate; SRPO's second part, less weight where the self-teacher is
unsure, is left out. ``sigmoid`` is SDAR's: per token, a weight of sigmoid(slope (log p_T − log p_S)) that
carries no gradient, with its slope of 5. SDAR weighs log p_S of the sampled token by it, which never pushes
a token down; here it weighs the divergence over the top-k tokens, which does. SDAR also gives the whole term
a hundredth of GRPO's weight: set `distillation_weight` for that.
"""

from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from tutelage.corrections import keep
from tutelage.errors import ConfigError
from tutelage.stage_config import SdpoConfig
from tutelage.training import ranks, weights
from tutelage.training.base import StageContext, StageResult, load_start, lora
from tutelage.training.online import Figures, finish, settings, task_of, task_rows, train
from tutelage.training.privileged import Privileged
from tutelage.training.rollout import Rollouts
from tutelage.training.sdpo_trainer import EpisodeSDPOTrainer, ScoredEpisode, SDPOConfig

TEACHERS = {"ema": "ema", "live": "live", "start": "base"}
"""Our names of the self-teacher's weights → TRL's."""


def run(stage: SdpoConfig, context: StageContext) -> StageResult:
    """Train the student by SDPO; one batch of rollouts per optimiser step.

    Raises:
        MissingPart: the starting weights are not here.
        ConfigError: as `make_trainer`.
    """
    model, tokenizer = load_start(context)
    rollouts = Rollouts(stage, context, tokenizer)
    privileged = Privileged(stage, context.memory, tokenizer, context.correct)
    trainer = make_trainer(stage, context, model, tokenizer, rollouts, privileged)
    figures = Figures(rollouts, context, stage.type, {"privileged": privileged})
    train(trainer, figures)
    result = finish(trainer, tokenizer, figures, experiences=tuple(privileged.used | rollouts.used))
    with context.record.transaction():
        for correction in privileged.corrections:
            keep(context.record, correction, arm=stage.type, cycle=context.cycle)
    return result


def make_trainer(
    stage: SdpoConfig,
    context: StageContext,
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    rollouts: Rollouts,
    privileged: Privileged,
) -> EpisodeSDPOTrainer:
    """TRL's trainer over `rollouts`, re-scored under `privileged`.

    Raises:
        ConfigError: the student has fewer tokens than `top_k`.
    """
    tokens = model.config.get_text_config().vocab_size
    if stage.top_k > tokens:
        raise ConfigError(f"sdpo: top_k = {stage.top_k} is more than the student's {tokens} tokens")

    def rollout(rows: Sequence[dict[str, Any]], trainer: Any) -> list[ScoredEpisode]:
        tasks = [task_of(row["prompt"]) for row in rows]
        scored = privileged.score(rollouts(tasks, trainer.accelerator.unwrap_model(trainer.model)))
        counts = [trainer.trained_tokens(item) for item in scored]
        trained = {"trained_tokens": float(sum(ranks.everyone(counts)))}
        rollouts.figures[-1].update(privileged.figures | trained)
        return scored

    # TRL loads a full fine-tune's teacher from this path, in the student's dtype (float32; in bfloat16 an
    # average at 0.05 stands still).
    model.config._name_or_path = str(weights.ensure(context.start))
    return EpisodeSDPOTrainer(
        rollout=rollout,
        gate=stage.gate,
        slope=stage.gate_slope,
        model=model,
        args=SDPOConfig(
            distillation_mode="topk_logits",
            distillation_topk=stage.top_k,
            distillation_add_tail=stage.tail,
            distillation_alpha=stage.alpha,
            distillation_weight=stage.distillation_weight,
            distillation_is_clip=stage.clip,
            teacher_model_kind=TEACHERS[stage.teacher],
            teacher_update_rate=stage.teacher_rate,
            diagnostics_warning_interval=0,
            **settings(stage, context),
        ),
        train_dataset=task_rows(stage, context.tasks),
        processing_class=tokenizer,
        peft_config=lora(context),
    )
