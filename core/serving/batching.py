"""One model that many requests share: each step computes the next token of all that are under way.

A request joins between two steps and leaves when it has ended. Greedy tokens are those that the model alone would
choose, up to the rounding of a matrix product. Not transformers' own continuous batching (5.23): its manager decides
once for all requests whether it samples, draws from one generator without a seed per request, is lost for good after
one exception, and through `sdpa` lets every request's query run over the keys of all.
"""

import asyncio
import logging
import queue
import random
import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import count

import torch
from transformers import PreTrainedModel

from tutelage.serving.slots import Slots
from tutelage.serving.student_engine import EngineFailed
from tutelage.serving.types import Sampling

_LOG = logging.getLogger(__name__)

PREFILL = 512
"""Tokens of prompts that are read between two steps; those who wait for their next token wait that long at most."""
WORTH = 16
"""Tokens of a common beginning from which on it is copied and not computed again."""
UNLOADED = "this version of the student has been unloaded"


@dataclass(eq=False)
class Asked:
    """One request, and where its tokens go."""

    ids: list[int]
    sampling: Sampling
    """`max_new_tokens` of it is kept to; stop strings are not looked at."""
    ends: frozenset[int]
    """Tokens that end the reply."""
    loop: asyncio.AbstractEventLoop
    tokens: "asyncio.Queue[int | Exception]" = field(default_factory=asyncio.Queue)
    """Filled from `loop`'s thread; nothing comes after an end, `max_new_tokens`, or an exception."""
    cancelled: bool = False

    def __post_init__(self) -> None:
        self._random = random.Random(self.sampling.seed)

    def draw(self, logits: torch.Tensor) -> int:
        """A token sampled from logits (vocabulary,), with randomness of the request's own."""
        # The largest becomes 0: however low the temperature, nothing overflows.
        chances = torch.softmax((logits.double() - logits.max()) / self.sampling.temperature, -1)
        tokens = None
        if self.sampling.top_p < 1:
            chances, tokens = _nucleus(chances, self.sampling.top_p)
        mass = chances.cumsum(-1)
        place = int(torch.searchsorted(mass, self._random.random() * mass[-1:]).clamp(max=len(mass) - 1))
        return place if tokens is None else int(tokens[place])


@dataclass(eq=False)
class _Slot:
    """One row of the cache."""

    ids: list[int] = field(default_factory=list)
    """Tokens whose keys and values it holds."""
    asked: Asked | None = None
    left: int = 0
    """Tokens that may still be sampled."""
    token: int = 0
    """The last one sampled; not in `ids` yet."""
    used: int = 0
    """When, in order."""


class Batcher:
    """Runs a model in a thread of its own.

    Args:
        model: a Llama-like causal LM whose layers all attend to everything before.
        slots: sequences that are generated together; more wait their turn.
    """

    def __init__(self, model: PreTrainedModel, slots: int) -> None:
        self.model = model
        self._inbox: queue.SimpleQueue[Asked | None] = queue.SimpleQueue()
        self._waiting: deque[Asked] = deque()
        self._outbox: list[tuple[Asked, int | Exception]] = []
        self._clock = count(1)
        self._closing = False
        self._door = threading.Lock()
        self._start(slots)
        self._thread = threading.Thread(target=self._run, name="student", daemon=True)
        self._thread.start()

    def _start(self, slots: int) -> None:
        self._cache = Slots(slots, self.model.config.num_hidden_layers)
        self._slots = [_Slot() for _ in range(slots)]
        self._running = 0
        """The first rows: those that are under way."""
        self._filling = False
        """Whether the row behind them is one whose prompt has been read in part."""

    def submit(self, asked: Asked) -> None:
        """Raises EngineFailed: it is closed."""
        with self._door:  # so that nobody comes in behind the one who closes it
            if self._closing:
                raise EngineFailed(UNLOADED)
            self._inbox.put(asked)

    def close(self) -> None:
        """Stop, and fail whatever is under way; returns when the thread has ended."""
        with self._door:
            self._closing = True
            self._inbox.put(None)
        self._thread.join()

    # -- the thread -----------------------------------------------------------------------------

    @torch.inference_mode()
    def _run(self) -> None:
        while True:
            self._take()
            if self._closing:
                break
            try:
                self._drop()
                self._fill()
                if self._running:
                    self._step()
            except Exception:  # costs the requests under way, not the engine
                _LOG.exception("the model failed; the requests under way are given up")
                self._fail(self._under_way(), "the model failed; the server's log says why")
                self._start(len(self._slots))
            self._deliver()
        self._fail([*self._under_way(), *self._waiting], UNLOADED)
        self._deliver()

    def _take(self) -> None:
        """Let in who has come; waits where there is nothing to do."""
        idle = not (self._running or self._filling or self._waiting)
        while idle or not self._inbox.empty():
            asked = self._inbox.get()
            if asked is not None:
                self._waiting.append(asked)
            idle = False

    def _drop(self) -> None:
        """Let go of those whose callers have gone."""
        self._waiting = deque(asked for asked in self._waiting if not asked.cancelled)
        for row in reversed(range(self._running)):
            if self._under(row).cancelled:
                self._leave(row)
        if self._filling and self._under(self._running).cancelled:
            self._slots[self._running].asked, self._filling = None, False

    def _fill(self) -> None:
        """Read prompts, up to `PREFILL` tokens of them."""
        budget = PREFILL
        while budget > 0 and (self._filling or (self._waiting and self._running < len(self._slots))):
            if not self._filling:
                self._place(self._waiting.popleft())
            slot = self._slots[self._running]
            asked, start = self._under(self._running), len(slot.ids)
            new = asked.ids[start : start + budget]
            end = start + len(new)
            budget -= len(new)
            logits = self._forward([new], torch.arange(start, end)[None], self._running, [start], end)
            slot.ids = asked.ids[:end]
            if end == len(asked.ids):
                self._filling = False
                self._running += 1
                self._choose([self._running - 1], logits)

    def _place(self, asked: Asked) -> None:
        """Give it the row behind those under way, with as much of its prompt as some row has already."""
        shared = [_common(slot.ids, asked.ids[:-1]) for slot in self._slots]
        free = range(self._running, len(self._slots))
        best = max(range(len(self._slots)), key=shared.__getitem__)
        length = shared[best]
        row = best
        if best not in free or length * 2 < len(self._slots[best].ids):  # others may want the rest of it
            row = min(free, key=lambda row: self._slots[row].used)
            length = length if length >= WORTH else 0
        slot = self._slots[row]
        slot.asked, slot.left = asked, asked.sampling.max_new_tokens
        if row != best:
            self._cache.copy(best, row, length)
        slot.ids = asked.ids[:length]
        self._swap(row, self._running)
        self._filling = True

    def _step(self) -> None:
        """The next token of all that are under way."""
        slots = self._slots[: self._running]
        starts = [len(slot.ids) for slot in slots]
        logits = self._forward([[slot.token] for slot in slots], torch.tensor(starts)[:, None], 0, starts)
        for slot in slots:
            slot.ids.append(slot.token)
        self._choose(range(self._running), logits)

    def _forward(
        self, ids: list[list[int]], positions: torch.Tensor, first: int, starts: list[int], end: int = 0
    ) -> torch.Tensor:
        """Logits (rows, vocabulary) behind the last token of each row, in float32.

        Args:
            ids: new tokens of the rows from `first` on.
            positions: (rows, new tokens).
            starts: tokens that the rows have.
        """
        device = self.model.device
        end, positions = end or max(starts) + 1, positions.to(device)
        self._cache.aim(first, torch.tensor(starts, device=device), end)
        output = self.model(
            input_ids=torch.tensor(ids, device=device),
            attention_mask=torch.arange(end, device=device) <= positions[:, None, :, None],
            position_ids=positions,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return output.logits[:, -1].float()

    def _choose(self, rows: Iterable[int], logits: torch.Tensor) -> None:
        """Note the next token of each of these rows; those that have ended leave."""
        greedy, sound = logits.argmax(-1).tolist(), logits.isfinite().all(-1).tolist()
        ended = []
        for place, row in enumerate(rows):
            slot, asked = self._slots[row], self._under(row)
            slot.token = asked.draw(logits[place]) if asked.sampling.temperature and sound[place] else greedy[place]
            slot.left -= 1
            failed = EngineFailed("the student's weights give no numbers (NaN or infinity)")
            self._outbox.append((asked, slot.token if sound[place] else failed))
            if slot.token in asked.ends or not slot.left or not sound[place]:
                ended.append(row)
        for row in reversed(ended):
            self._leave(row)

    def _leave(self, row: int) -> None:
        """Free a row, and close the gap; what it holds stays."""
        self._slots[row].asked, self._slots[row].used = None, next(self._clock)
        self._running -= 1
        self._swap(row, self._running)
        if self._filling:
            self._swap(self._running, self._running + 1)

    def _swap(self, one: int, other: int) -> None:
        if one != other:
            slots = self._slots
            self._cache.swap(one, other, max(len(slots[one].ids), len(slots[other].ids)))
            slots[one], slots[other] = slots[other], slots[one]

    def _under(self, row: int) -> Asked:
        asked = self._slots[row].asked
        assert asked is not None
        return asked

    def _under_way(self) -> list[Asked]:
        return [slot.asked for slot in self._slots if slot.asked]

    def _fail(self, those: Iterable[Asked], why: str) -> None:
        self._outbox += [(asked, EngineFailed(why)) for asked in those]

    def _deliver(self) -> None:
        """Hand the tokens over, with one call per event loop."""
        loops = {asked.loop for asked, _ in self._outbox}
        for loop in loops:
            mine = [(asked.tokens, token) for asked, token in self._outbox if asked.loop is loop]
            try:
                loop.call_soon_threadsafe(_put, mine)
            except RuntimeError:  # its program ends, and nobody waits any more
                _LOG.debug("an event loop was closed while replies were under way")
        self._outbox.clear()


def _put(those: "list[tuple[asyncio.Queue[int | Exception], int | Exception]]") -> None:
    for tokens, token in those:
        tokens.put_nowait(token)


def _common(one: list[int], other: list[int]) -> int:
    """How many tokens both begin with."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (here, there) in pairs if here != there), min(len(one), len(other)))


def _nucleus(chances: torch.Tensor, top_p: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The most likely tokens that together have at least `top_p`: their chances, highest first, and ids."""
    best, tokens = chances.topk(min(1024, len(chances)))
    if float(best.sum()) < top_p:
        best, tokens = chances.sort(descending=True)
    kept = int((best.cumsum(-1) - best < top_p).sum().clamp(min=1))
    return best[:kept], tokens[:kept]
