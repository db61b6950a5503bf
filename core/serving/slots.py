"""Keys and values of many sequences that come and go, each in a row of its own.

The rows that are read together are always the first ones, so that a forward pass works on views of the buffers and
nothing is gathered or copied per token. A sequence that has ended keeps its row until somebody needs it: whoever
begins with the same tokens goes on from there.
"""

from dataclasses import dataclass

import torch
from transformers import Cache
from transformers.cache_utils import DynamicLayer

STEP = 256
"""Tokens by which the rows are made longer."""


@dataclass
class _Aim:
    """Where the next forward pass reads and writes."""

    first: int
    rows: int
    starts: torch.Tensor
    """(rows,) places of the first new token."""
    end: int
    """Tokens of the longest row, the new ones included."""


class Slots(Cache):
    """A cache of `count` rows; `aim` says which of them the next forward pass is about."""

    def __init__(self, count: int, layers: int) -> None:
        self.aimed = _Aim(0, 0, torch.zeros(0, dtype=torch.long), 0)
        self.room = 0
        self.slots = [_Slots(self, count) for _ in range(layers)]
        super().__init__(layers=list(self.slots))

    def aim(self, first: int, starts: torch.Tensor, end: int) -> None:
        """The next forward pass adds one token to each of the rows from `first` on, or several to a single one.

        Args:
            starts: (rows,) tokens that each row has.
            end: tokens of the longest row afterwards.
        """
        self.aimed = _Aim(first, len(starts), starts, end)
        if end > self.room:
            self.room = -(-end // STEP) * STEP

    def copy(self, source: int, target: int, length: int) -> None:
        """Write the first `length` tokens of one row into another."""
        for buffer in self._buffers():
            buffer[target, :, :length] = buffer[source, :, :length]

    def swap(self, one: int, other: int, length: int) -> None:
        """Exchange the first `length` tokens of two rows."""
        for buffer in self._buffers():
            kept = buffer[one, :, :length].clone()
            buffer[one, :, :length] = buffer[other, :, :length]
            buffer[other, :, :length] = kept

    def _buffers(self) -> list[torch.Tensor]:
        return [buffer for layer in self.slots for buffer in layer.buffers]


class _Slots(DynamicLayer):
    """One layer's keys and values, in buffers of shape (slots, heads, room, head size)."""

    def __init__(self, owner: Slots, count: int) -> None:
        super().__init__()
        self.owner, self.count = owner, count
        self.buffers: list[torch.Tensor] = []
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the new tokens of the rows aimed at; returns all their keys and values so far, longer rows' places
        included, which the mask hides."""
        states, aim = (key_states, value_states), self.owner.aimed
        if not self.buffers:
            self.buffers = [state.new_zeros(self.count, state.shape[1], 0, state.shape[3]) for state in states]
        if self.buffers[0].shape[2] < self.owner.room:
            self.buffers = [self._longer(buffer) for buffer in self.buffers]
        rows = slice(aim.first, aim.first + aim.rows)
        for buffer, state in zip(self.buffers, states, strict=True):
            if aim.rows == 1:
                start = aim.end - state.shape[2]
                buffer[aim.first, :, start : aim.end] = state[0]
            else:
                places = torch.arange(rows.start, rows.stop, device=state.device)
                buffer[places, :, aim.starts] = state[:, :, 0]
        keys, values = (buffer[rows, :, : aim.end] for buffer in self.buffers)
        return keys, values

    def _longer(self, buffer: torch.Tensor) -> torch.Tensor:
        # Zeros, for what a mask hides is still multiplied, by nought.
        made = buffer.new_zeros(*buffer.shape[:2], self.owner.room, buffer.shape[3])
        made[:, :, : buffer.shape[2]] = buffer
        return made

    def get_seq_length(self) -> int:
        return self.owner.aimed.end
