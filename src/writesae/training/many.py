"""Runs, one or several: heads of a layer, seeds, sparsities. Each has its own optimiser, folder and result.

In one process they are trained one after another; several processes (`workers`) use several cores, with the same bits.
On a CUDA device, where small products wait for each other, runs of one shape advance together and share theirs; each is
then what it would be alone up to the order of sums. A run that ends is finished at once, and one that fails keeps its
last checkpoint and leaves the others alone.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import cast

from writesae.calls import worded
from writesae.cluster import Cluster
from writesae.devices import choose_device
from writesae.disk import alone
from writesae.errors import InputError, WritesaeError
from writesae.sae.batch import Batch
from writesae.sae.config import BatchTopK, TopK
from writesae.sae.workspace import Workspace
from writesae.store import StreamStore, open_store
from writesae.training import folder
from writesae.training.config import TrainConfig
from writesae.training.log import Logger, Loggers, Service, StepRecord, imported, open_logger
from writesae.training.loop import Run, losses
from writesae.training.process import cpu_threads, interrupts
from writesae.training.recipe import recipe
from writesae.training.result import TrainResult
from writesae.training.room import at_once
from writesae.training.sequences import head_shape
from writesae.training.side_by_side import Said, run_side_by_side
from writesae.types import Site


@worded
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
    same weights to the bit; a finished one is loaded. Ctrl-C and SIGTERM save and stop.

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


@worded
def train_many(
    store: StreamStore | str | Path,
    configs: Sequence[TrainConfig],
    out: str | Path | Sequence[str | Path],
    services: Sequence[Service] = (),
    loggers: Sequence[Sequence[Logger]] = (),
    together: bool | None = None,
    workers: int = 1,
    ended: Callable[[TrainResult], None] = lambda result: None,
    failed: Callable[[int, WritesaeError], None] | None = None,
    cluster: Cluster | None = None,
) -> list[TrainResult]:
    """Train every configuration in a folder of its own: under `out` (in `out` itself where there is only one), or in
    the folders that `out` lists. `loggers` are those of each run, in the same order; `ended` hears of every result when
    it is there.

    `workers` is the most runs at a time, each in a process of its own; a `cluster` has workers of its own, on any of
    its machines, where a run whose worker is lost goes on from its checkpoint. Store and folders must lie where all
    machines see them, and the runs' records are in their folders alone. `together` says whether runs that differ in
    site and seed alone share their products; None: on CUDA devices only. Runs at work at one time hold at most the
    largest `memory` that one of them asks for, together. The results are those of `train` on each, in order: to the bit
    where nothing is shared. Raises InputError if two runs would share a folder, and what `train` raises: what is asked
    for wrongly at once, and what goes wrong in a run, by name, when the others are finished; where `failed` is given,
    it hears of each such run by its number instead, and the others' results are returned. An interrupt saves every run.
    """
    if isinstance(store, str | Path):
        store = open_store(store)
    names, places = _places(configs, out)
    if workers < 1 or (workers > 1 and together):
        raise InputError(f"workers={workers} cannot be: at least 1, and 1 where runs share their products (together)")
    if loggers and len(loggers) != len(configs):
        raise InputError(f"{len(loggers)} lists of loggers were given for {len(configs)} runs: give one a run, or none")
    if cluster and (together or workers > 1 or loggers or set(services) - {"console"}):
        raise InputError(
            "runs on a cluster have its workers, share no products, and keep their records in their folders"
        )
    for service in services:
        if service != "console":
            imported(service)  # what is missing is said before a folder is made
    left = [number for number, place in enumerate(places) if not (place / folder.RESULT).exists()]
    plan = [] if cluster else _plan(store, {number: configs[number] for number in left}, together, workers)

    def open_log(number: int) -> Loggers:
        opened = [open_logger(service, names[number], places[number]) for service in services]
        return Loggers([*opened, *(loggers[number] if loggers else ())])

    runs = [Run(store, config, place) for config, place in zip(configs, places, strict=True)]
    board = _Board(runs, open_log, ended)
    if cluster is not None:
        board.train_there(store, left, cluster)
    elif workers > 1 and len(left) > 1:
        board.train_apart(store, left, len(plan[0]))
    else:
        with interrupts() as interrupted:
            for group in plan:
                board.train_together(group, interrupted)
    if board.failures and failed is None:
        raise _failed(board.failures, names)
    for number, error in sorted(board.failures.items()):
        cast(Callable[[int, WritesaeError], None], failed)(number, error)
    return [result for result in board.results if result is not None]


def _plan(
    store: StreamStore, configs: Mapping[int, TrainConfig], together: bool | None, workers: int
) -> list[list[int]]:
    """Which runs are at work at one time: groups one after another or, of several processes, how many at once.

    Raises InputError where they do not fit in what memory is free.
    """
    groups: dict[object, list[int]] = {}
    for number, config in configs.items():
        shared = choose_device(config.device).type == "cuda" if together is None else together
        alike: object = "apart" if workers > 1 else number
        if shared and workers == 1 and isinstance(config.sparsity, TopK | BatchTopK):
            alike = head_shape(store, config.site), replace(config, site=Site(0, 0), seed=0)
        groups.setdefault(alike, []).append(number)
    plan = []
    for group in groups.values():
        size = at_once(store, [configs[number] for number in group], workers if workers > 1 else len(group))
        if size < min(workers, len(group)):
            warnings.warn(f"{size} runs at a time instead of {workers}: more would hold over `memory`", stacklevel=3)
        plan += [group[i : i + size] for i in range(0, len(group), size)]
    return plan


class _Board:
    """Runs of one call, and what became of them: a result, or why there is none."""

    def __init__(
        self, runs: Sequence[Run], open_log: Callable[[int], Loggers], ended: Callable[[TrainResult], None]
    ) -> None:
        self.runs, self.open_log, self.ended = runs, open_log, ended
        self.results: list[TrainResult | None] = [None] * len(runs)
        self.failures: dict[int, WritesaeError] = {}
        for number, run in enumerate(runs):
            self.finish(number, run.finished())

    def finish(self, number: int, result: TrainResult | None) -> None:
        """Keep a result and tell of it."""
        self.results[number] = result
        if result is not None:
            self.ended(result)

    @contextmanager
    def failing(self, number: int) -> Iterator[None]:
        """What goes wrong inside ends this run alone."""
        try:
            yield
        except WritesaeError as error:
            self.failures[number] = error

    def train_apart(self, store: StreamStore, numbers: Sequence[int], workers: int) -> None:
        """Train these runs, `workers` at a time, each in a process of its own."""
        with ExitStack() as stack:
            logs = {number: self.open_log(number) for number in numbers}
            for log in logs.values():
                stack.callback(log.close)

            def hear(number: int, said: Said) -> None:
                if isinstance(said, StepRecord):
                    logs[number].record(said)
                elif said is None:
                    self.finish(number, self.runs[number].finished())
                else:
                    self.failures[number] = said

            jobs = {number: (self.runs[number].config, self.runs[number].out) for number in numbers}
            run_side_by_side(store, jobs, workers, hear)

    def train_there(self, store: StreamStore, numbers: Sequence[int], cluster: Cluster) -> None:
        """Train these runs on a cluster."""
        jobs = {number: (self.runs[number].config, self.runs[number].out.absolute()) for number in numbers}
        for number, error in cluster.each(_there, jobs, store):
            if isinstance(error, WritesaeError):
                self.failures[number] = error
            else:
                self.finish(number, self.runs[number].finished())

    def train_together(self, group: Sequence[int], interrupted: threading.Event) -> None:
        """Train a group in this process, step by step, each run until it ends or fails; several share products."""
        if interrupted.is_set():
            raise KeyboardInterrupt("training stopped before the next run; the same command goes on from there")
        going, work = dict[int, Iterator[Batch]](), Workspace()
        with cpu_threads(self.runs[group[0]].config.threads), ExitStack() as stack:
            for number in group:
                run = self.runs[number]
                with self.failing(number):
                    stack.enter_context(alone(run.out))
                    if (result := run.finished()) is not None:  # by another process, in the meantime
                        self.finish(number, result)
                        continue
                    going[number] = run.begin(self.open_log(number))
                    stack.callback(run.log.close)
            while going and not interrupted.is_set():
                ready = self._ready(going)
                runs = [self.runs[number] for number in ready]
                if not runs:
                    continue
                for number, run, loss in zip(ready, runs, losses(runs, list(ready.values()), work), strict=True):
                    with self.failing(number):
                        run.learn(ready[number], loss)
                    if number in self.failures:
                        del going[number]
            if going:
                for number in going:
                    self.runs[number].save()
                at = ", ".join(self.runs[number].place for number in going)
                raise KeyboardInterrupt(f"training stopped and is saved ({at}); the same command goes on from there")

    def _ready(self, going: dict[int, Iterator[Batch]]) -> dict[int, Batch]:
        """The next batch of those runs that have made the fewest steps; what has ended is finished and leaves."""
        ready, behind = dict[int, Batch](), min(self.runs[number].step for number in going)
        for number, batches in list(going.items()):
            if self.runs[number].step > behind:
                continue
            with self.failing(number):
                batch = next(batches, None)
                if batch is not None:
                    ready[number] = batch
                    continue
                self.finish(number, self.runs[number].finish())
            del going[number]
        return ready


def _there(store: StreamStore, config: TrainConfig, out: Path) -> None:
    """In a worker: the run, which is in its folder then."""
    train(store, config, out)


def _failed(failures: Mapping[int, WritesaeError], names: Sequence[str]) -> WritesaeError:
    """What to raise when all others have ended."""
    first, kinds = next(iter(failures.values())), {type(error) for error in failures.values()}
    if len(names) == 1:
        return first
    kind = kinds.pop() if len(kinds) == 1 else WritesaeError
    told = "; ".join(f"{names[number]}: {error}" for number, error in sorted(failures.items()))
    rest = len(names) - len(failures)
    return kind(told + (f"; the other {rest} of {len(names)} runs are finished" if rest else ""))


def _places(configs: Sequence[TrainConfig], out: str | Path | Sequence[str | Path]) -> tuple[list[str], list[Path]]:
    """Names and folders of the runs."""
    if not configs:
        raise InputError("no run was asked for: give at least one site")
    names = [config.name for config in configs]
    if len(set(names)) < len(names):
        names = [f"{name}_{number}" for number, name in enumerate(names)]
    if isinstance(out, str | Path):
        return names, [Path(out)] if len(configs) == 1 else [Path(out) / name for name in names]
    places = [Path(place) for place in out]
    if len({place.absolute() for place in places}) != len(configs) or len(places) != len(configs):
        raise InputError(f"{len(configs)} runs need as many different folders, not {', '.join(map(str, places))}")
    return names, places
