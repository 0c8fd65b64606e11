"""Runs, one or several at once: heads of a layer, seeds, sparsities. Each has its own optimiser, folder and result.

In one process the runs advance in step, so that they share one reading of the store: sequences that one run has read
stay at hand until the others have had them. On a CPU they take turns, and every run does exactly what it would do
alone, to the bit; several processes (`workers`) use several cores, with the same bits. On a CUDA device, where small
products wait for each other, runs of one shape share theirs; each is then what it would be alone up to the order of
sums.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import NamedTuple, cast

from writesae.errors import InputError
from writesae.recurrence.written import Written
from writesae.sae.batch import Batch
from writesae.sae.config import BatchTopK, TopK
from writesae.sae.step import losses_and_gradients
from writesae.sae.workspace import Workspace
from writesae.store import StreamStore, open_store
from writesae.training import folder
from writesae.training.config import TrainConfig
from writesae.training.log import JsonLines, Logger, Loggers, Service, open_logger
from writesae.training.loop import Run, TrainResult
from writesae.training.process import cpu_threads, interrupts, products
from writesae.training.recipe import recipe, run_name
from writesae.training.room import refuse_unless_room
from writesae.training.schedule import active_features
from writesae.training.side_by_side import Job, run_side_by_side
from writesae.types import Site

STEPS_A_TURN = 16
"""Steps that a run makes before the next has its turn: parameters and optimiser state are then in the cache."""
MEMORY = 1 << 30
"""Bytes of writes that are kept for the next run to ask."""


class SharedStore:
    """A store that remembers the last few reads, so that runs on the same head read it once."""

    def __init__(self, store: StreamStore, limit: int = MEMORY) -> None:
        self._store, self._limit, self._held = store, limit, 0
        self._lock = threading.Lock()
        self._writes: dict[tuple[Site, int, int], Written] = {}

    def __getattr__(self, name: str) -> object:
        """All else is the store's own."""
        return getattr(self._store, name)

    def read(self, site: Site, start: int, stop: int) -> Written:
        """Writes, from memory where they were read lately."""
        return self._remembered(self._store.read, site, start, stop)

    def pairs(self, site: Site, start: int, stop: int) -> Written:
        """Two writes a token, likewise."""
        return self._remembered(self._store.pairs, site, start, stop)

    def _remembered(self, read: Callable[[Site, int, int], Written], site: Site, start: int, stop: int) -> Written:
        place = (site, start, stop)  # a head has writes or pairs, never both
        with self._lock:  # runs read ahead in threads of their own
            held = self._writes.get(place)
            if held is None:
                held = self._writes[place] = read(site, start, stop)
                self._held += _bytes(held)
                while self._held > self._limit and len(self._writes) > 1:
                    self._held -= _bytes(self._writes.pop(next(iter(self._writes))))
            return held


def _bytes(written: Written) -> int:
    return sum(x.nbytes for x in written if x is not None)


class _Turn(NamedTuple):
    run: Run
    log: Loggers
    batches: Iterator[Batch]


_Group = list[tuple[_Turn, Batch]]


def _groups(ready: _Group, together: bool | None) -> list[_Group]:
    """The runs whose next steps share their products; others alone, in order."""
    groups: dict[object, _Group] = {}
    for number, (turn, batch) in enumerate(ready):
        run, config = turn.run, turn.run.config
        shared = run.device.type == "cuda" if together is None else together
        if shared and isinstance(config.sparsity, TopK | BatchTopK):
            k = active_features(config, run.step)
            shape = (batch.key.shape, batch.tokens)
            key = (run.sae_config, shape, run.device, config.aux_weight, config.aux_k, k, config.precision)
            groups.setdefault(key, []).append((turn, batch))
        else:
            groups[number] = [(turn, batch)]
    return list(groups.values())


def _advance(group: _Group, work: Workspace, interrupted: threading.Event) -> None:
    """One step of a group, or a turn of a run alone."""
    if len(group) == 1:
        (turn, batch) = group[0]
        turn.run.advance(batch, turn.log)
        for more in islice(turn.batches, STEPS_A_TURN - 1):
            turn.run.advance(more, turn.log)
            if interrupted.is_set():
                return
        return
    started = time.perf_counter()
    due = [turn.run.due() for turn, _ in group]
    dead = [one for one, _ in due if one is not None] or None
    batches = [batch for _, batch in group]
    with products(group[0][0].run.config.precision) as half:
        losses = losses_and_gradients([turn.run.sae for turn, _ in group], batches, dead, due[0][1], work, half)
    seconds = (time.perf_counter() - started) / len(group)
    for (turn, batch), loss in zip(group, losses, strict=True):
        turn.run.learn(batch, loss, turn.log, seconds)


def train(
    store: StreamStore | str | Path,
    config: TrainConfig | None = None,
    out: str | Path | None = None,
    loggers: Sequence[Logger] = (),
    **settings: object,
) -> TrainResult:
    """Train one dictionary on one head of a store, in the folder `out`.

        train(store, site="L5.H0", target="write", features=1024, k=16, out="run")

    Settings are the fields of TrainConfig by name, and the short forms `k`, `preset` and a sparsity's name; beside a
    `config` they take the place of its own. A run that was interrupted goes on from its checkpoint and ends with the
    same weights to the bit; a finished one is loaded. Ctrl-C saves and stops.

    Raises InputError for a site that the store does not hold or a run that does not fit in memory, ConfigError for an
    impossible dictionary or setting, OutputError for a folder of another run, DataError where data or loss are not
    finite.
    """
    if out is None:
        raise InputError('training needs a folder to keep its run in: out="run"')
    if not isinstance(config, TrainConfig | None):
        raise InputError(f'settings go by name, site="L5.H0", or in a TrainConfig, not {config!r}')
    if config is None or settings:
        config = recipe(config, settings)
    return train_many(store, [config], out, loggers=[loggers])[0]


def train_many(
    store: StreamStore | str | Path,
    configs: Sequence[TrainConfig],
    out: str | Path | Sequence[str | Path],
    services: Sequence[Service] = (),
    loggers: Sequence[Sequence[Logger]] = (),
    together: bool | None = None,
    workers: int = 1,
) -> list[TrainResult]:
    """Train every configuration in a folder of its own: under `out` (in `out` itself where there is only one), or in
    the folders that `out` lists. `loggers` are those of each run, in the same order.

    `workers` is how many run at a time, each in a process of its own; one process lets them take turns. `together` says
    whether runs of one shape share their products; None: on CUDA devices only. The results are those of `train` on
    each, in order: to the bit where nothing is shared. Raises InputError if two runs would share a folder, and what
    `train` raises; an interrupt saves every run.
    """
    if isinstance(store, str | Path):
        store = open_store(store)
    names, places = _places(configs, out)
    if workers < 1 or (workers > 1 and together):
        raise InputError(f"workers={workers} cannot be: at least 1, and 1 where runs share their products (together)")
    if loggers and len(loggers) != len(configs):
        raise InputError(f"{len(loggers)} lists of loggers were given for {len(configs)} runs: give one a run, or none")
    refuse_unless_room(store, list(zip(configs, places, strict=True)), workers)
    shared = cast(StreamStore, SharedStore(store)) if len(configs) > 1 else store
    runs = [Run(shared, config, place) for config, place in zip(configs, places, strict=True)]
    results = [run.finished() for run in runs]
    left = [number for number, result in enumerate(results) if result is None]
    with ExitStack() as stack:
        logs = {}
        for number in left:
            opened = [open_logger(service, names[number], places[number]) for service in services]
            logs[number] = stack.enter_context(Loggers([*opened, *(loggers[number] if loggers else ())]))
        if workers > 1 and len(left) > 1:
            jobs = [Job(names[number], configs[number], places[number]) for number in left]
            run_side_by_side(store, jobs, workers, lambda job, record: logs[left[job]].record(record))
            results = [run.finished() for run in runs]
        else:
            done = _take_turns([(runs[number], logs[number]) for number in left], together)
            for number, result in zip(left, done, strict=True):
                results[number] = result
    return [result for result in results if result is not None]


def _places(configs: Sequence[TrainConfig], out: str | Path | Sequence[str | Path]) -> tuple[list[str], list[Path]]:
    """Names and folders of the runs."""
    if not configs:
        raise InputError("no run was asked for: give at least one site")
    names = [run_name(config) for config in configs]
    if len(set(names)) < len(names):
        names = [f"{name}_{number}" for number, name in enumerate(names)]
    if isinstance(out, str | Path):
        return names, [Path(out)] if len(configs) == 1 else [Path(out) / name for name in names]
    places = [Path(place) for place in out]
    if len({place.absolute() for place in places}) != len(configs) or len(places) != len(configs):
        raise InputError(f"{len(configs)} runs need as many different folders, not {', '.join(map(str, places))}")
    return names, places


def _take_turns(runs: Sequence[tuple[Run, Loggers]], together: bool | None) -> list[TrainResult]:
    """Train all in this process, to the end."""
    with ExitStack() as stack:
        stack.enter_context(cpu_threads(max((run.config.threads for run, _ in runs), default=0)))
        interrupted = stack.enter_context(interrupts())
        turns, work = [], Workspace()
        for run, log in runs:
            run.prepare()
            run.work = work  # one after another, they need it only while they step
            lines = JsonLines(run.out / folder.HISTORY, run.step)
            stack.callback(lines.close)
            turns.append(_Turn(run, Loggers([lines, *log.loggers]), run.batches()))
        while turns:
            drawn = [(turn, next(turn.batches, None)) for turn in turns]
            ready = [(turn, batch) for turn, batch in drawn if batch is not None]
            turns = [turn for turn, _ in ready]
            for group in _groups(ready, together):
                _advance(group, work, interrupted)
            if interrupted.is_set() and turns:
                for turn in turns:
                    turn.run.save()
                at = ", ".join(f"{t.run.config.site} at step {t.run.step:,} of {t.run.steps:,}" for t in turns)
                raise KeyboardInterrupt(f"training stopped and is saved ({at}); the same command goes on from there")
        return [run.finish() for run, _ in runs]
