"""Several runs at once: heads of a layer, seeds, sparsities. Each has its own optimiser, folder and result.

The runs advance in turn, one step each, so that they share one reading of the store: sequences that one run has
read stay at hand until the others have had them. Every run does exactly what it would do alone, to the bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from torch import Tensor

from writesae.errors import InputError
from writesae.recurrence.written import Written
from writesae.training import folder
from writesae.training.config import TrainConfig
from writesae.training.data import Origin, StoredHead, WriteStore
from writesae.training.log import JsonLines, Logger, Loggers, Service, open_logger
from writesae.training.loop import Run, TrainResult, cpu_threads, interrupts
from writesae.training.requests import run_name
from writesae.types import Site

MEMORY = 1 << 30
"""Bytes of writes that are kept for the next run to ask."""


class SharedStore:
    """A store that remembers the last few reads, so that runs on the same head read it once."""

    def __init__(self, store: WriteStore, limit: int = MEMORY) -> None:
        self.store, self.limit, self._held = store, limit, 0
        self._writes: dict[tuple[Site, int, int], Written] = {}

    @property
    def length(self) -> int:
        """Tokens a sequence."""
        return self.store.length

    @property
    def sequences(self) -> int:
        """Number of sequences."""
        return self.store.sequences

    @property
    def layers(self) -> dict[int, StoredHead]:
        """Stored layers by number."""
        return dict(self.store.layers)

    @property
    def hash(self) -> str:
        """Identity of the content."""
        return self.store.hash

    @property
    def provenance(self) -> Origin:
        """Where it comes from."""
        return self.store.provenance

    def read(self, site: Site, start: int, stop: int) -> Written:
        """Writes, from memory where they were read lately."""
        place = (site, start, stop)
        held = self._writes.get(place)
        if held is None:
            held = self._writes[place] = self.store.read(site, start, stop)
            self._held += _bytes(held)
            while self._held > self.limit and len(self._writes) > 1:
                self._held -= _bytes(self._writes.pop(next(iter(self._writes))))
        return held

    def keys(self, site: Site, start: int, stop: int) -> Tensor:
        """Write keys."""
        return self.store.keys(site, start, stop)

    def native(self, site: Site, start: int, stop: int) -> Tensor:
        """Native write values."""
        return self.store.native(site, start, stop)


def _bytes(written: Written) -> int:
    return sum(x.nbytes for x in written if x is not None)


def train_many(
    store: WriteStore,
    configs: Sequence[TrainConfig],
    out: str | Path,
    services: Sequence[Service] = (),
    loggers: Sequence[Logger] = (),
) -> list[TrainResult]:
    """Train every configuration in a folder of its own under `out` (in `out` itself where there is only one).

    The results are those of `train` on each, in order. Raises InputError if two runs would share a folder, and what
    `train` raises; an interrupt saves every run.
    """
    names = [run_name(config) for config in configs]
    if len(set(names)) < len(names):
        names = [f"{name}_{number}" for number, name in enumerate(names)]
    if not configs:
        raise InputError("no run was asked for: give at least one site")
    places = [Path(out)] if len(configs) == 1 else [Path(out) / name for name in names]
    shared = SharedStore(store)
    runs = [Run(shared, config, place) for config, place in zip(configs, places, strict=True)]
    results = [run.finished() for run in runs]
    active = [(number, run) for number, run in enumerate(runs) if results[number] is None]
    with ExitStack() as stack:
        stack.enter_context(cpu_threads(max(config.threads for config in configs)))
        interrupted = stack.enter_context(interrupts())
        turns = []
        for number, run in active:
            run.prepare()
            opened = [open_logger(service, names[number], places[number]) for service in services]
            lines = JsonLines(run.out / folder.HISTORY, run.step)
            turns.append((run, stack.enter_context(Loggers([lines, *opened, *loggers])), run.batches()))
        while turns:
            left = []
            for run, log, batches in turns:
                batch = next(batches, None)
                if batch is not None:
                    run.advance(batch, log)
                    left.append((run, log, batches))
            turns = left
            if interrupted.is_set() and turns:
                for run, _, _ in turns:
                    run.save()
                raise KeyboardInterrupt(f"{len(turns)} runs stopped and saved; the same command goes on from there")
        for number, run in active:
            results[number] = run.finish()
    return [result for result in results if result is not None]
