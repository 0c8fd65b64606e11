"""From a stream store to shuffled batches.

The order of an epoch is a pure function of the seed and the epoch, so a sampler's position is its step number.
Everything is held in memory where it fits; otherwise sequences are read in shuffled groups ("pools"), and chunks are
shuffled within a pool.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from writesae.errors import DataError, InputError
from writesae.recurrence.written import Written, states_before
from writesae.sae.batch import Batch
from writesae.training.config import TrainConfig
from writesae.types import Site


class StoredHead(Protocol):
    """What training asks about a stored layer."""

    @property
    def heads(self) -> int:
        """Number of heads."""

    @property
    def d_k(self) -> int:
        """Key side."""

    @property
    def d_v(self) -> int:
        """Value side."""


class Origin(Protocol):
    """What training asks about where a store comes from."""

    @property
    def host(self) -> str:
        """Name of the model."""

    @property
    def revision(self) -> str:
        """What pins the model's weights."""

    @property
    def corpus(self) -> str:
        """Hash of the tokens."""


class WriteStore(Protocol):
    """What training asks of a store."""

    @property
    def length(self) -> int:
        """Tokens a sequence."""

    @property
    def sequences(self) -> int:
        """Number of sequences."""

    @property
    def layers(self) -> Mapping[int, StoredHead]:
        """Stored layers by number."""

    @property
    def hash(self) -> str:
        """Identity of the content."""

    @property
    def provenance(self) -> Origin:
        """Where it comes from."""

    def read(self, site: Site, start: int, stop: int) -> Written:
        """Writes of sequences `start <= n < stop`."""

    def keys(self, site: Site, start: int, stop: int) -> Tensor:
        """Write keys of the same, `[B, T, K]` (all that a native write needs besides its value)."""

    def native(self, site: Site, start: int, stop: int) -> Tensor:
        """Native write values of the same, `[B, T, V]`."""


GROUP = 64
"""Sequences that are read at once, where any of them is wanted."""


class Split(NamedTuple):
    """Sequence numbers on each side of the validation split."""

    train: list[int]
    """Trained on, rising."""
    held_out: list[int]
    """Held out, rising."""


def head_shape(store: WriteStore, site: Site) -> tuple[int, int]:
    """`(d_k, d_v)` of a site; raises InputError if the store does not hold it."""
    layer = store.layers.get(site.layer)
    if layer is None or not 0 <= site.head < layer.heads:
        held = ", ".join(f"L{i} ({x.heads} heads)" for i, x in sorted(store.layers.items()))
        raise InputError(f"the store holds no site {site}; it holds {held}")
    return layer.d_k, layer.d_v


def split_sequences(store: WriteStore, config: TrainConfig) -> Split:
    """Hold out a random share of the sequences; raises InputError if there are fewer than 2."""
    if store.sequences < 2:
        raise InputError(f"training needs at least 2 sequences (one is held out); the store has {store.sequences}")
    order = torch.randperm(store.sequences, generator=torch.Generator().manual_seed(config.seed))
    held = min(max(1, round(config.validation * store.sequences)), store.sequences - 1)
    return Split(sorted(order[held:].tolist()), sorted(order[:held].tolist()))


def chunk_length(config: TrainConfig, d_k: int, d_v: int, length: int) -> int:
    """Tokens a chunk of the state target."""
    wanted = max(16, min(64, max(d_k, d_v) // 2)) if config.chunk is None else config.chunk
    return min(wanted, length)


def read_sequences(store: WriteStore, config: TrainConfig, numbers: Sequence[int]) -> Written:
    """The writes of these sequences (rising), read in groups; `update` is the native value for `write-value`.

    Raises DataError naming site and sequence where a number is not finite.
    """
    parts = []
    for begin in range(0, store.sequences, GROUP):
        wanted = [number for number in numbers if begin <= number < begin + GROUP]
        if not wanted:
            continue
        start, stop = wanted[0], wanted[-1] + 1
        if config.target == "write-value":
            keys = store.keys(config.site, start, stop)
            part = Written(keys, store.native(config.site, start, stop), keys.new_zeros(*keys.shape[:2], 1))
        else:
            part = store.read(config.site, start, stop)
        rows = [number - start for number in wanted]
        whole = len(rows) == stop - start
        part = Written(*(x if whole else x[rows] for x in (part.key, part.update, part.log_decay)))
        if not (part.key.isfinite().all() and part.update.isfinite().all()):
            bad = next(n for n, k, u in zip(wanted, *part[:2], strict=True) if not (k + u.sum()).isfinite().all())
            raise DataError(f"training data of {config.site}, sequence {bad}: a value is not finite")
        parts.append(part)
    return Written(*(torch.cat(x) for x in zip(*(p[:3] for p in parts), strict=True)))


@dataclass(frozen=True)
class Chunks:
    """Training units in memory: chunks of a few sequences, or their loose tokens."""

    key: Tensor
    """`[S, T, K]`."""
    update: Tensor
    """`[S, T, V]`, scaled."""
    log_decay: Tensor | None
    """`[S, T, 1 | K]`; None for write targets."""
    starts: Tensor | None
    """State before each chunk, `[S, P, K, V]`, scaled; None for write targets."""
    positions: Tensor
    """First token of each chunk, `[P]`."""
    length: int
    """Tokens a chunk."""

    @property
    def units(self) -> int:
        """Number of chunks."""
        return self.key.shape[0] * self.positions.shape[0]

    def take(self, units: Tensor) -> Batch:
        """The batch of these chunks, by number."""
        sequence, place = units // len(self.positions), units % len(self.positions)
        token = self.positions[place].unsqueeze(1) + torch.arange(self.length, device=units.device)
        row = (sequence.unsqueeze(1) * self.key.shape[1] + token).flatten()

        def pick(x: Tensor) -> Tensor:
            return x.flatten(0, 1).index_select(0, row).view(len(units), self.length, -1)

        if self.log_decay is None or self.starts is None:
            return Batch(pick(self.key), pick(self.update), None, None)
        initial = self.starts.flatten(0, 1).index_select(0, units)
        return Batch(pick(self.key), pick(self.update), pick(self.log_decay), initial)


def make_chunks(written: Written, config: TrainConfig, length: int, scale: float, device: torch.device) -> Chunks:
    """Prepare sequences for sampling. The last chunk overlaps the one before where `length` does not divide T."""
    time = written.key.shape[1]
    written = written._replace(update=written.update * scale).to(device)
    if config.target != "state":
        every = torch.arange(time, device=device)
        return Chunks(written.key, written.update, None, None, every, 1)
    positions = sorted({*range(0, time - length + 1, length), time - length})
    starts = states_before(written, positions)
    return Chunks(
        written.key, written.update, written.log_decay, starts, torch.tensor(positions, device=device), length
    )


def pool_size(store: WriteStore, config: TrainConfig, sequences: int) -> int:
    """How many of so many sequences `memory` holds at once, chunk-start states included."""
    d_k, d_v = head_shape(store, config.site)
    numbers = d_k + d_v + 1
    if config.target == "state":
        numbers += -(-d_k * d_v // chunk_length(config, d_k, d_v, store.length))
    return max(1, min(sequences, int(config.memory * 2**30 / (4 * store.length * numbers))))


class Sampler:
    """Batches of a run: `batches(step)` goes on from any step, the same whatever came before."""

    def __init__(
        self, store: WriteStore, config: TrainConfig, numbers: list[int], scale: float, device: torch.device
    ) -> None:
        self.store, self.config, self.numbers, self.scale, self.device = store, config, numbers, scale, device
        self.length = chunk_length(config, *head_shape(store, config.site), store.length)
        state = config.target == "state"
        self.pool = pool_size(store, config, len(numbers))
        self.per_sequence = -(-store.length // self.length) if state else store.length
        self.per_batch = -(-config.batch // self.length) if state else config.batch
        pools = [min(self.pool, len(numbers) - i) for i in range(0, len(numbers), self.pool)]
        self.steps_per_pool = [max(1, size * self.per_sequence // self.per_batch) for size in pools]
        self.whole: Chunks | None = None

    def preload(self, written: Written) -> None:
        """Hand over the training sequences, already read, where all of them are held in memory."""
        self.whole = make_chunks(written, self.config, self.length, self.scale, self.device)

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps in one pass (a rest smaller than a batch is left for another epoch's shuffle)."""
        return sum(self.steps_per_pool)

    @property
    def tokens_per_batch(self) -> int:
        """Matrices a step."""
        return self.per_batch * (self.length if self.config.target == "state" else 1)

    def _generator(self, *keys: int) -> torch.Generator:
        seed = self.config.seed
        for key in keys:
            seed = (seed * 1_000_003 + key + 1) % (2**63 - 1)
        return torch.Generator().manual_seed(seed)

    def _load(self, epoch: int, pool: int) -> Chunks:
        if len(self.steps_per_pool) == 1:
            if self.whole is None:
                self.whole = self._make(self.numbers)
            return self.whole
        order = torch.randperm(len(self.numbers), generator=self._generator(1, epoch)).tolist()
        chosen = order[pool * self.pool : (pool + 1) * self.pool]
        return self._make(sorted(self.numbers[i] for i in chosen))

    def _make(self, numbers: list[int]) -> Chunks:
        written = read_sequences(self.store, self.config, numbers)
        return make_chunks(written, self.config, self.length, self.scale, self.device)

    def batches(self, step: int) -> Iterator[Batch]:
        """Endless batches from step number `step` on."""
        epoch, within = divmod(step, self.steps_per_epoch)
        while True:
            for pool, steps in enumerate(self.steps_per_pool):
                if within >= steps:
                    within -= steps
                    continue
                chunks = self._load(epoch, pool)
                order = torch.randperm(chunks.units, generator=self._generator(2, epoch, pool)).to(self.device)
                for i in range(within, steps):
                    yield chunks.take(self._units(order, i))
                within = 0
            epoch += 1

    def _units(self, order: Tensor, i: int) -> Tensor:
        units = order[i * self.per_batch : (i + 1) * self.per_batch]
        if len(units) < self.per_batch:  # fewer chunks than a batch in all: some come twice
            units = order.repeat(-(-self.per_batch // len(order)))[: self.per_batch]
        return units


def whole_batches(written: Written, config: TrainConfig, length: int, scale: float) -> list[Batch]:
    """Whole sequences as batches, every token once: full chunks of `length`, and then the rest."""
    written = written._replace(update=written.update * scale)
    if config.target != "state":
        return [Batch(written.key.flatten(0, 1)[:, None], written.update.flatten(0, 1)[:, None], None, None)]
    time = written.key.shape[1]
    starts = states_before(written, range(0, time, length))
    whole = time // length
    batches = []
    for first, stop, size in ((0, whole, length), (whole, whole + 1, time - whole * length)):
        if size == 0 or stop == first:
            continue
        begin = first * length
        parts = [
            x[:, begin : begin + (stop - first) * size].reshape(-1, size, x.shape[-1])
            for x in (written.key, written.update, written.log_decay)
        ]
        batches.append(Batch(parts[0], parts[1], parts[2], starts[:, first:stop].flatten(0, 1)))
    return batches
