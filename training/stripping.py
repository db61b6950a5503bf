"""Episodes that were shown experiences, as the student is to learn them: without.

The first message is rendered again without the experiences; nothing else of the episode changes, and every sampled id
stays. The log-probabilities that came with the ids belong to another prompt, so they are computed anew, for the prompt
that is trained on and with the weights that sampled. A ratio of new to old weights then begins at 1 and is clipped as
everywhere. What it does not correct is that the ids were drawn from the prompt with experiences: this is learning from
a better informed self, on purpose. Tokens that the student would hardly have chosen by itself are among them, and those
of a failed episode are pushed down although it would hardly ever have sampled them.
"""

from collections.abc import Sequence
from typing import Any

import torch

from tutelage.conversation import conversation
from tutelage.training.chat import ChatEncoder
from tutelage.training.policy import sampling
from tutelage.types import Tokens, Trajectory


def stripped(trajectory: Trajectory, turns: Sequence[Tokens], encoder: ChatEncoder) -> tuple[Tokens, ...]:
    """The same turns behind a first prompt without experiences; log-probabilities are left as they were."""
    opening = encoder.first(conversation(trajectory, experiences=False)[:2], trajectory.tools)
    return (turns[0].model_copy(update={"prompt": tuple(opening)}), *turns[1:])


def rescored(
    turns: Sequence[Tokens], model: Any, *, temperature: float, dtype: torch.dtype = torch.float32
) -> tuple[Tokens, ...]:
    """The same turns with the log-probabilities that `model` gives to the sampled tokens.

    Args:
        model: a causal LM, or one with an adapter.
        dtype: of the arithmetic, as in training.
    """
    ids: list[int] = []
    predicting: list[int] = []
    for turn in turns:
        ids += turn.prompt
        predicting += range(len(ids) - 1, len(ids) - 1 + len(turn.sampled))
        ids += turn.sampled
    sampled = torch.tensor([token for turn in turns for token in turn.sampled], device=model.device)
    with sampling(model), torch.autocast(model.device.type, torch.bfloat16, enabled=dtype is torch.bfloat16):
        logits = model(
            input_ids=torch.tensor([ids], device=model.device),
            use_cache=False,
            logits_to_keep=torch.tensor(predicting, device=model.device),
        ).logits[0]
        scores = torch.log_softmax(logits.float() / temperature, -1).gather(-1, sampled[:, None])[:, 0]
    values = iter(scores.tolist())
    return tuple(turn.model_copy(update={"logprobs": tuple(next(values) for _ in turn.sampled)}) for turn in turns)
