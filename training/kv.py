"""Key/value caches of single episodes, and of a batch of them with room to grow.

Between turns an episode's cache is one compact tensor without padding. For a turn, the caches of any set
of episodes are put side by side, left-padded, in buffers that already hold the room for the tokens to
come, so that nothing is reallocated per token.
"""

from collections.abc import Sequence

import torch
from transformers import Cache, PretrainedConfig
from transformers.cache_utils import DynamicLayer

Slice = torch.Tensor
"""One episode's cache: (layers, 2, heads, length, head size); keys and values of its first tokens."""


class RoomyCache(Cache):
    """A batch cache of roomy layers."""

    def __init__(self, layers: Sequence["RoomyLayer"]) -> None:
        super().__init__(layers=list(layers))
        self.roomy = layers

    def keep(self, rows: Sequence[int]) -> None:
        """Drop all rows but these."""
        index = torch.tensor(list(rows), device=self.roomy[0].buffers[0].device)
        for layer in self.roomy:
            layer.keep(index)

    def cut(self, row: int, kept: torch.Tensor) -> Slice:
        """A copy of one row at the positions where `kept` (length,) is True."""
        length = kept.shape[0]
        return torch.stack(
            [torch.stack([buffer[row, :, :length][:, kept] for buffer in layer.buffers]) for layer in self.roomy]
        )


class RoomyLayer(DynamicLayer):
    """One layer's keys and values at the front of buffers of shape (batch, heads, room, head size)."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, length: int) -> None:
        super().__init__()
        self.buffers = (keys, values)
        self.length = length
        self.dtype, self.device = keys.dtype, keys.device
        self.is_initialized = True
        self._look()

    def _look(self) -> tuple[torch.Tensor, torch.Tensor]:
        keys, values = (buffer[:, :, : self.length] for buffer in self.buffers)
        self.keys, self.values = keys, values
        return keys, values

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append in place; returns all keys and values so far."""
        end = self.length + key_states.shape[-2]
        for buffer, states in zip(self.buffers, (key_states, value_states), strict=True):
            buffer[:, :, self.length : end] = states
        self.length = end
        return self._look()

    def keep(self, rows: torch.Tensor) -> None:
        """Drop all rows but these."""
        self.buffers = (self.buffers[0][rows], self.buffers[1][rows])
        self._look()


def stack(
    slices: Sequence[Slice | None], room: int, config: PretrainedConfig, dtype: torch.dtype, device: torch.device
) -> RoomyCache:
    """A batch cache whose rows are `slices`, left-padded to the longest, with `room` more tokens to come."""
    heads = config.num_key_value_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    past = max((one.shape[-2] for one in slices if one is not None), default=0)
    layers = []
    for layer in range(config.num_hidden_layers):
        buffers = torch.zeros(2, len(slices), heads, past + room, size, dtype=dtype, device=device)
        for row, one in enumerate(slices):
            if one is not None:
                buffers[:, row, :, past - one.shape[-2] : past] = one[layer]
        layers.append(RoomyLayer(buffers[0], buffers[1], past))
    return RoomyCache(layers=layers)
