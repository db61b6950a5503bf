"""The student as a policy: many episodes answered in one batch, each token computed once.

Every episode keeps its key/value cache between turns, so a turn costs the new observation and the reply.
Episodes of any length and turn can share a batch. In float32 the reply does not depend on that batch, up
to the rounding of a matrix product.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Unpack

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tutelage.training import kv
from tutelage.training.token_policy import Asked, Sampled, Settings, TokenPolicy


@dataclass
class _Row:
    """One row of a running batch."""

    key: str
    """Of the episode."""
    ids: list[int]
    """All tokens of the episode before those that are sampled."""
    cache: kv.Slice | None
    """Of the first tokens of `ids`; at least one token is not in it."""
    draws: torch.Tensor
    """One uniform number per token to sample."""
    sampled: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)


class StudentPolicy(TokenPolicy):
    """A local causal language model that acts; the same context and seed give the same reply in any batch.

    Args:
        model: a Llama-like causal LM (key/value heads, no sliding window); used as it is, in its own dtype.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, **settings: Unpack[Settings]
    ) -> None:
        super().__init__(tokenizer, **settings)
        self.model = model
        self._caches: dict[str, kv.Slice] = {}

    def sample(self, asked: Sequence[Asked]) -> list[Sampled]:
        rows = [_Row(one.key, list(one.ids), self._caches.get(one.key), self._draws(one.seed)) for one in asked]
        with sampling(self.model):
            self._generate(rows)
        return [Sampled(tuple(row.sampled), tuple(row.logprobs)) for row in rows]

    def forget(self, keys: Sequence[str]) -> None:
        super().forget(keys)
        for key in keys:
            self._caches.pop(key, None)

    def _draws(self, seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed % 2**63)
        return torch.rand(self.max_new_tokens, generator=generator, dtype=torch.float64)

    def _generate(self, rows: list[_Row]) -> None:
        """Sample every row's reply; a row leaves the batch when it has ended."""
        device = self.model.device
        fresh = [row.ids[_cached(row) :] for row in rows]
        block = max(map(len, fresh))
        cache = kv.stack(
            [row.cache for row in rows],
            block + self.max_new_tokens,
            self.model.config,
            self.model.dtype,
            device,
        )
        past = cache.get_seq_length()
        seen = torch.zeros(len(rows), past + block, dtype=torch.bool, device=device)
        ids = torch.full((len(rows), block), self.encoder.end, device=device)
        for place, (row, new) in enumerate(zip(rows, fresh, strict=True)):
            seen[place, past - _cached(row) : past] = True
            seen[place, past + block - len(new) :] = True
            ids[place, block - len(new) :] = torch.tensor(new, device=device)
        positions = (seen.long().cumsum(-1) - 1).clamp(min=0)[:, past:]
        while rows:
            logits = self._forward(ids, seen, positions, cache)
            tokens = self._sample(rows, logits)
            staying = [place for place, row in enumerate(rows) if not self._ended(row)]
            if len(staying) < len(rows):
                for place in set(range(len(rows))) - set(staying):
                    self._caches[rows[place].key] = cache.cut(place, seen[place])
                if not staying:
                    break
                cache.keep(staying)
                rows = [rows[place] for place in staying]
                seen, tokens, positions = seen[staying], tokens[staying], positions[staying]
            ids = tokens[:, None]
            seen = torch.cat([seen, torch.ones_like(seen[:, :1])], dim=1)
            positions = positions[:, -1:] + 1

    def _forward(
        self, ids: torch.Tensor, seen: torch.Tensor, positions: torch.Tensor, cache: kv.RoomyCache
    ) -> torch.Tensor:
        """Logits (rows, vocabulary) after the last token, in float32."""
        output = self.model(
            input_ids=ids,
            attention_mask=seen,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return output.logits[:, -1].float()

    def _sample(self, rows: Sequence[_Row], logits: torch.Tensor) -> torch.Tensor:
        """Choose the next token of every row and note it; returns (rows,) ids.

        Sampling inverts the cumulative distribution at the row's own uniform number, so a row needs no
        randomness of its batch.
        """
        logprobs = torch.log_softmax(logits / (self.temperature or 1.0), dim=-1)
        if self.temperature:
            mass = logprobs.double().exp().cumsum(-1)
            draw = torch.stack([row.draws[len(row.sampled)] for row in rows]).to(mass.device)[:, None]
            tokens = torch.searchsorted(mass, draw * mass[:, -1:]).squeeze(-1).clamp(max=mass.shape[-1] - 1)
        else:
            tokens = logits.argmax(-1)
        chosen = logprobs.gather(-1, tokens[:, None]).squeeze(-1)
        for row, token, logprob in zip(rows, tokens.tolist(), chosen.tolist(), strict=True):
            row.sampled.append(token)
            row.logprobs.append(logprob)
        return tokens

    def _ended(self, row: _Row) -> bool:
        return row.sampled[-1] == self.encoder.end or len(row.sampled) == self.max_new_tokens


def generation_copy(model: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    """The model to sample with: `model` itself if it has `dtype` and no adapter, else a merged copy in `dtype`."""
    base = _plain(model)
    if base is model and model.dtype == dtype:
        return model
    # Not a deep copy: TRL puts a forward of its own on its model, and a copy of that would run the original.
    config = copy.deepcopy(base.config)
    if hasattr(config, "quantization_config"):  # the copy is not quantised, and saved it must not say so
        del config.quantization_config
    with torch.random.fork_rng(devices=[]):  # what it begins with is overwritten; training must not miss its numbers
        made = type(base)(config)
    made = made.to(base.device, dtype).eval().requires_grad_(False)
    copy_weights(model, made)
    return made


def merged(model: Any) -> PreTrainedModel:
    """The model itself, or with its LoRA adapter merged into it.

    A 4-bit base is not merged into, which would round the adapter away: what was trained is its dequantised weights
    with the adapter added, and that is what comes back, in float32.
    """
    if not hasattr(model, "merge_and_unload"):
        return model
    if getattr(_plain(model), "is_loaded_in_4bit", False):
        return generation_copy(model, torch.float32)
    return model.merge_and_unload(adapter_names=["default"])


@torch.no_grad()
def copy_weights(source: PreTrainedModel, target: PreTrainedModel) -> None:
    """Write the weights of `source`, adapters merged, into the plain model `target`, in its dtype."""
    if source is target:
        return
    into = dict(target.named_parameters())
    for name, tensor in merged_weights(source):
        if name in into:
            into.pop(name).copy_(tensor)
    if into:
        raise ValueError(f"source has no weights {sorted(into)}")


def merged_weights(model: PreTrainedModel) -> Iterator[tuple[str, torch.Tensor]]:
    """Names as in the plain model, and weights with the active LoRA adapters added; `model` is unchanged."""
    base = _plain(model)
    if base is model:
        yield from model.named_parameters()
        return
    from peft.utils.integrations import dequantize_module_weight

    module: Any
    for name, module in base.named_modules():
        if hasattr(module, "get_delta_weight"):
            layer = module.get_base_layer()
            change = sum(module.get_delta_weight(adapter) for adapter in module.active_adapters)
            yield f"{name}.weight", dequantize_module_weight(layer) + change
            if layer.bias is not None:
                yield f"{name}.bias", layer.bias
        elif not any(part in name for part in (".base_layer", ".lora_")):
            for own, tensor in module.named_parameters(recurse=False):
                yield f"{name}.{own}" if name else own, tensor


def _plain(model: Any) -> Any:
    """The model below an adapter, or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _cached(row: _Row) -> int:
    return 0 if row.cache is None else row.cache.shape[-2]


@contextmanager
def sampling(model: PreTrainedModel) -> Iterator[None]:
    """Evaluation mode without gradients; in training mode checkpointing would drop the cache."""
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(was_training)
