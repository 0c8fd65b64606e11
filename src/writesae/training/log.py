"""Where a run's numbers go: one small protocol. JSONL is always written; every optional service is imported here."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import Context
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol, cast

from writesae.config import Json, from_plain
from writesae.disk import json_bytes, read_lines
from writesae.errors import ConfigError, DataError, InputError, OutputError

Service = Literal["console", "tensorboard", "wandb", "trackio"]


@dataclass(frozen=True)
class StepRecord:
    """One line of a run's history."""

    step: int
    """Optimiser steps done."""
    tokens: int
    """Matrices seen."""
    loss: float
    """What was minimised, for data of variance 1."""
    mse: float
    """Mean squared error an entry of the raw matrix, on the training batch."""
    explained_variance: float
    """On the training batch, about the mean and variance of the training sample."""
    alive: int
    """Features that fired in the last `dead_after` steps."""
    lr: float
    """Learning rate."""
    seconds: float
    """Time spent training, earlier sessions included."""
    resampled: int = 0
    """Features restarted since the last record."""
    held_out: float | None = None
    """Explained variance on held-out sequences, where this step measured it."""


class Logger(Protocol):
    """Takes records as they come."""

    def record(self, record: StepRecord) -> None:
        """One more record."""

    def close(self) -> None:
        """No more will come."""


class JsonLines:
    """The history on disk, one JSON object a line. Opening it drops what lies after `step` (a resumed run's tail)."""

    def __init__(self, path: Path, step: int) -> None:
        """Raises OutputError where the disk refuses, DataError for a file that holds something else."""
        self.path = path
        with self._refusal():
            self.file = path.open("ab", buffering=0)  # a line that the disk did not take is not tried again at the end
            self.file.truncate(sum(size for record, size in _lines(path) if record.step <= step))

    def record(self, record: StepRecord) -> None:
        """Append; raises OutputError where the disk refuses."""
        line = json_bytes(cast(Json, asdict(record)), self.path.name, indent=None, nulls=True)
        with self._refusal():
            while line:  # a disk that fills up takes a part first
                line = line[self.file.write(line) :]

    def close(self) -> None:
        self.file.close()

    @contextmanager
    def _refusal(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OutputError(f"cannot write {self.path}: {error.strerror}") from None


def read_history(path: Path) -> list[StepRecord]:
    """The records of a run; a last line that was cut short by a kill is left out. Raises DataError otherwise."""
    return [record for record, _ in _lines(path)]


def _lines(path: Path) -> Iterator[tuple[StepRecord, int]]:
    """Records and the bytes of their lines."""
    for number, (line, size) in enumerate(read_lines(path, cut=True), 1):
        try:
            yield from_plain(StepRecord, line), size
        except ConfigError as error:
            raise DataError(f"{path}, line {number} is no record of a run: {error}") from None


class Console:
    """One line a record."""

    def __init__(self, name: str) -> None:
        self.name = name

    def record(self, record: StepRecord) -> None:
        held = "" if record.held_out is None else f"  held out {record.held_out:.4f}"
        print(
            f"{self.name}  step {record.step:,}  tokens {record.tokens:,}  loss {record.loss:.4f}  "
            f"EV {record.explained_variance:.4f}  alive {record.alive:,}  {record.seconds:.0f} s{held}",
            flush=True,
        )

    def close(self) -> None:
        """Nothing to do."""


class TensorBoard:
    """Scalars for TensorBoard."""

    def __init__(self, folder: Path) -> None:
        self.writer = imported("tensorboard").SummaryWriter(str(folder))

    def record(self, record: StepRecord) -> None:
        for name, value in _scalars(record).items():
            self.writer.add_scalar(name, value, record.step)

    def close(self) -> None:
        self.writer.close()


class Tracker:
    """Weights & Biases or trackio, which share their calls."""

    def __init__(self, service: Literal["wandb", "trackio"], name: str) -> None:
        own = {"reinit": "create_new"} if service == "wandb" else {}  # else it gives the run that is on already
        init = partial(imported(service).init, project="writesae", name=name, **own)
        self.run = Context().run(init)  # trackio ends the run that it finds in its context

    def record(self, record: StepRecord) -> None:
        self.run.log(_scalars(record), step=record.step)

    def close(self) -> None:
        self.run.finish()


def _scalars(record: StepRecord) -> dict[str, float]:
    return {name: value for name, value in asdict(record).items() if name != "step" and value is not None}


def imported(service: Service) -> Any:
    """The module of a service; raises InputError where its package is missing."""
    try:
        return importlib.import_module("torch.utils.tensorboard" if service == "tensorboard" else service)
    except ImportError:
        message = f"logging to {service} needs the package {service}: python -m pip install {service}"
        raise InputError(message) from None


def open_logger(service: Service, name: str, folder: Path) -> Logger:
    """The logger of a service; raises InputError where its package is missing."""
    if service == "console":
        return Console(name)
    if service == "tensorboard":
        return TensorBoard(folder / "tensorboard")
    return Tracker(service, name)


class Loggers:
    """Several loggers as one, closed together."""

    def __init__(self, loggers: Sequence[Logger]) -> None:
        self.loggers = loggers

    def record(self, record: StepRecord) -> None:
        for logger in self.loggers:
            logger.record(record)

    def close(self) -> None:
        for logger in self.loggers:
            logger.close()
