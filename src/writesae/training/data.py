"""From a stream store to shuffled batches.

The order of an epoch is a pure function of the seed and the epoch, so a sampler's position is its step number.
Everything is held in memory where it fits; otherwise sequences are read in shuffled groups ("pools"), the next one
while the last is trained on, and units are shuffled within a pool.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from writesae.errors import DataError, InputError
from writesae.sae.batch import Batch
from writesae.store import StreamStore
from writesae.training.chunks import Chunks, LooseWrites, chunk_length, make_chunks, owners, positions
from writesae.training.config import TrainConfig
from writesae.training.sequences import Sequences, head_shape, read_sequences

RUN = 8
"""Neighbouring sequences that stay together in a pool, for the store's sake, where a pool holds many of them."""
MIXED = 16
"""Least number of such runs in a pool."""


def numbers_a_sequence(store: StreamStore, config: TrainConfig, ahead: bool = False) -> int:
    """Numbers that are held for a sequence: its writes and the states before its chunks.

    Where pools are read `ahead`, the next one's writes are held beside a pool.
    """
    d_k, d_v = head_shape(store, config.site)
    layer = store.layers[config.site.layer]
    writes = (2 if layer.erase == "own" and config.target == "state" else 1) * (d_k + d_v + 1)
    states = 0
    if config.target == "state":
        states = -(-d_k * d_v // chunk_length(config, d_k, d_v, store.length))
    return store.length * ((2 if ahead else 1) * writes + states)


def pool_size(store: StreamStore, config: TrainConfig, sequences: int) -> int:
    """How many of so many sequences `memory` holds at once."""
    room = config.memory * 2**30 / 4
    if sequences * numbers_a_sequence(store, config) <= room:
        return sequences
    return max(1, int(room / numbers_a_sequence(store, config, ahead=True)))


class Sampler:
    """Batches of a run: `batches(step)` goes on from any step, the same whatever came before."""

    def __init__(
        self, store: StreamStore, config: TrainConfig, numbers: list[int], scale: float, device: torch.device
    ) -> None:
        """Sequences `numbers` are sampled from, those that padding leaves too short excepted.

        Raises InputError if none is left.
        """
        self.store, self.config, self.scale, self.device = store, config, scale, device
        length = chunk_length(config, *head_shape(store, config.site), store.length)
        state = config.target == "state"
        self.length = length if state else 1
        self.stride = config.stride if state else 1
        self.padding = dict(zip(numbers, store.padding()[numbers].tolist(), strict=True))
        counts = {p: len(positions(store.length - p, self.length)) for p in set(self.padding.values())}
        units = {n: self.stride * counts[self.padding[n]] for n in numbers}
        self.numbers = [n for n in numbers if units[n]]
        if not self.numbers:
            raise InputError(
                f"none of the {len(numbers)} training sequences has {self.length} tokens that are no padding; "
                "give a smaller chunk, or longer sequences"
            )
        self.pool = pool_size(store, config, len(self.numbers))
        self.per_batch = -(-config.batch // (self.length // self.stride))
        each = sum(units.values()) / len(self.numbers)  # a pool's share, whichever sequences an epoch puts there
        pools = [min(self.pool, len(self.numbers) - i) for i in range(0, len(self.numbers), self.pool)]
        self.steps_per_pool = [max(1, int(size * each + 1e-6) // self.per_batch) for size in pools]
        self.whole: Chunks | LooseWrites | None = None

    def preload(self, sequences: Sequences) -> None:
        """Hand over the training sequences, already read, where all of them are held in memory."""
        self.whole = make_chunks(sequences, self.config, self.length, self.scale, self.device)

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps in one pass (a rest smaller than a batch is left for another epoch's shuffle)."""
        return sum(self.steps_per_pool)

    @property
    def tokens_per_batch(self) -> int:
        """Matrices a step."""
        return self.per_batch * (self.length // self.stride)

    def _generator(self, *keys: int) -> torch.Generator:
        seed = self.config.seed
        for key in keys:
            seed = (seed * 1_000_003 + key + 1) % (2**63 - 1)
        return torch.Generator().manual_seed(seed)

    def _pool(self, epoch: int, pool: int) -> list[int]:
        """The sequences of an epoch's pool, rising: some runs of neighbours."""
        if len(self.steps_per_pool) == 1:
            return self.numbers
        run = max(1, min(RUN, self.pool // MIXED))
        runs = torch.randperm(-(-len(self.numbers) // run), generator=self._generator(1, epoch)).tolist()
        order = [place for number in runs for place in range(number * run, min((number + 1) * run, len(self.numbers)))]
        return [self.numbers[place] for place in sorted(order[pool * self.pool : (pool + 1) * self.pool])]

    def _places(self, epoch: int, within: int) -> Iterator[tuple[int, int, int]]:
        """`(epoch, pool, first step in it)` from step `within` of an epoch on, endlessly."""
        while True:
            for pool, steps in enumerate(self.steps_per_pool):
                if within < steps:
                    yield epoch, pool, within
                within = max(0, within - steps)
            epoch += 1

    def batches(self, step: int, stop: int | None = None) -> Iterator[Batch]:
        """Batches from step number `step` on, up to step number `stop` (endless if absent).

        Raises DataError naming the step where what is read for it is not finite or damaged.
        """
        if step == stop:
            return
        places = self._places(*divmod(step, self.steps_per_epoch))
        reader = ThreadPoolExecutor(1, "writesae-read")
        try:
            place = next(places)
            ahead = None if self._held() else reader.submit(self._read, *place[:2])
            while stop is None or step < stop:
                epoch, pool, within = place
                try:
                    read = None if ahead is None else ahead.result()
                except DataError as error:
                    raise DataError(f"{error} (read for step {step + 1:,})") from None
                chunks = self._chunks(read)
                del read
                place, end = next(places), step + self.steps_per_pool[pool] - within
                end = end if stop is None else min(end, stop)
                more = end != stop and not self._held()
                ahead = reader.submit(self._read, *place[:2]) if more else None
                order = self._order(epoch, pool, chunks.units).to(self.device)
                for i in range(within, within + end - step):
                    yield chunks.take(self._units(order, i))
                    step += 1
                del chunks  # before the next pool's are made
        finally:
            reader.shutdown(wait=False, cancel_futures=True)

    def sequences(self, step: int) -> list[int]:
        """Numbers of the sequences that a step's batch is from, rising."""
        epoch, pool, within = next(self._places(*divmod(step, self.steps_per_epoch)))
        numbers = self._pool(epoch, pool)
        place = owners([self.padding[n] for n in numbers], self.store.length, self.length)
        units = self._units(self._order(epoch, pool, len(place) * self.stride), within)
        return sorted({numbers[place[unit // self.stride]] for unit in units.tolist()})

    def _order(self, epoch: int, pool: int, units: int) -> Tensor:
        return torch.randperm(units, generator=self._generator(2, epoch, pool))

    def _held(self) -> bool:
        """Whether every sequence is in memory."""
        return self.whole is not None

    def _read(self, epoch: int, pool: int) -> Sequences:
        return read_sequences(self.store, self.config, self._pool(epoch, pool))

    def _chunks(self, read: Sequences | None) -> Chunks | LooseWrites:
        """The units of a pool. Made where the steps are taken: a thread of its own might round differently."""
        if self.whole is None:
            assert read is not None
            chunks = make_chunks(read, self.config, self.length, self.scale, self.device)
            if len(self.steps_per_pool) > 1:
                return chunks
            self.whole = chunks
        return self.whole

    def _units(self, order: Tensor, i: int) -> Tensor:
        """The units of a pool's step `i`; where a pool holds fewer than its steps take, some come twice."""
        which = torch.arange(i * self.per_batch, (i + 1) * self.per_batch, device=order.device) % len(order)
        return order[which]
