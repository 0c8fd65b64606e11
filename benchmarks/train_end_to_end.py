"""Tokens a second of training, from a store on disk to the update, against the bare step on batches in memory.

    python benchmarks/train_end_to_end.py [--d 128] [--features 2048] [--sequences 200] [--memory 0.12]

Captures random streams into a store, has the system forget the files (where it can), and trains one head twice, once
with all writes in memory and once in pools of `memory` GiB that are read again in every epoch. The clock runs from
opening the store to the last update: reading, decompression, chunk-start states, the dictionary's start, shuffling,
every step. The bare figure is the same run's steps on the same batches, already in memory, timed in the same process.
Give it enough epochs: the start (measuring the data, making the dictionary) is a matter of seconds, once. Pools of a
few sequences read more than they use, since a chunk of the store holds several; real ones hold hundreds.
Prints the share that is left of it, and the peak memory of the whole process while it ran.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
import tyro
from step_time import high_water
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from writesae.devices import choose_device
from writesae.errors import InputError
from writesae.recurrence import Stream
from writesae.sae import TopK
from writesae.sae.batch import Batch
from writesae.sae.workspace import Workspace
from writesae.store import capture, open_store
from writesae.training import TrainConfig
from writesae.training.log import Loggers
from writesae.training.loop import Run, losses
from writesae.training.process import cpu_threads
from writesae.types import Site


@dataclass(frozen=True)
class Options:
    """Measure training from a store on disk."""

    d: int = 128
    """Key and value side of a head."""
    features: int = 2048
    """Atoms."""
    k: int = 32
    """Active atoms a token."""
    sequences: int = 200
    """Sequences in the store; a fifth of them is held out."""
    length: int = 512
    """Tokens a sequence."""
    epochs: float = 8.0
    """Passes over the training sequences."""
    memory: float = 0.12
    """GiB of the small pools."""
    target: Literal["state", "write-delta"] = "state"
    """What is modelled."""
    device: str = "cpu"
    """Where the steps run."""
    threads: int = 1
    """CPU threads of a step."""
    quick: bool = False
    """A few seconds with small heads, to see that it runs."""


@dataclass(frozen=True)
class _Layer:
    family: str = "random"


@dataclass(frozen=True)
class RandomHost:
    """A host without a model, for `capture`: keys, values and slow decays at random."""

    d: int
    heads: int = 2
    name: str = "random"
    revision: str = "0"
    dtype: torch.dtype = torch.float32
    layers: dict[int, _Layer] = field(default_factory=lambda: {0: _Layer()})

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """There is none."""
        raise InputError("random streams have no tokenizer")

    def need_writes(self) -> None:
        """It writes."""

    def record(
        self, tokens: Tensor, layers: Sequence[int], attention_mask: Tensor | None = None, first: int | None = None
    ) -> dict[int, Stream]:
        """Random streams, the same for the same tokens."""
        g = torch.Generator().manual_seed(int(tokens.sum()))
        key, value = (torch.randn(*tokens.shape, self.heads, self.d, generator=g) for _ in range(2))
        decay = -0.1 * torch.rand(*tokens.shape, self.heads, 1, generator=g)
        return dict.fromkeys(layers, Stream(key, torch.nn.functional.normalize(key, dim=-1), value, decay))


def forget(folder: Path) -> None:
    """Have the system drop its copies of a folder's files, so that reading them means the disk."""
    for path in folder.rglob("*"):
        if path.is_file() and hasattr(os, "posix_fadvise"):
            with path.open("rb") as file, contextlib.suppress(OSError):
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


class Clock:
    """Wall time and processor time since the start. The second is what counts on a machine with other work to do."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.begun = time.perf_counter(), time.process_time()

    def seconds(self) -> Seconds:
        """So far, with the device's queue empty."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return Seconds(time.perf_counter() - self.begun[0], time.process_time() - self.begun[1])


class Seconds(NamedTuple):
    """Of one kind of run."""

    wall: float
    """By the clock."""
    processor: float
    """Of all threads together: reading in the background counts here."""

    def a_token(self, tokens: int) -> Seconds:
        """Per token."""
        return Seconds(self.wall / tokens, self.processor / tokens)


def advance(run: Run, batch: Batch, work: Workspace) -> None:
    """One step."""
    [loss] = losses([run], [batch], work)
    run.learn(batch, loss)


def bare(path: Path, config: TrainConfig, out: Path) -> Seconds:
    """Per token, of the run's own steps on its own batches, all at hand; a few of them to warm up."""
    run = Run(open_store(path), config, out)
    batches, work = list(itertools.islice(run.begin(Loggers([])), 64)), Workspace()
    for batch in batches[:6]:
        advance(run, batch, work)
    clock = Clock(run.device)
    for batch in batches[6:]:
        advance(run, batch, work)
    return clock.seconds().a_token(sum(batch.tokens for batch in batches[6:]))


def end_to_end(path: Path, config: TrainConfig, out: Path) -> tuple[Seconds, float, int]:
    """Of a whole run per token, wall seconds before its first step, and the number of pools an epoch."""
    forget(path)
    Path("/proc/self/clear_refs").write_text("5")  # start the peak afresh
    clock = Clock(choose_device(config.device))
    run = Run(open_store(path), config, out)
    left, work = run.begin(Loggers([])), Workspace()
    ready = clock.seconds().wall
    for batch in left:
        advance(run, batch, work)
    tokens = run.step * run.sampler.tokens_per_batch
    return clock.seconds().a_token(tokens), ready, len(run.sampler.steps_per_pool)


def main(options: Options) -> None:
    """Capture, measure, print."""
    if options.quick:
        options = replace(options, d=32, features=512, k=16, sequences=40, length=256, epochs=20, memory=0.003)
    config = TrainConfig(
        site=Site(0, 1),
        target=options.target,
        features=options.features,
        sparsity=TopK(options.k),
        epochs=options.epochs,
        validate_every=0,
        checkpoint_every=10**9,
        log_every=10**9,
        device=options.device,
        threads=options.threads,
    )
    tokens = np.random.default_rng(0).integers(0, 1 << 16, (options.sequences, options.length))
    with tempfile.TemporaryDirectory() as folder, cpu_threads(options.threads):
        place = Path(folder)
        path = capture(RandomHost(options.d), tokens, "all", place / "s.zarr", progress=lambda a, b: None).path
        best = bare(path, config, place / "bare")
        print(f"{options.target}, d = {options.d}, {options.features:,} features, {options.threads} thread(s)")
        for name, memory in (("all in memory", 64.0), ("in pools", options.memory)):
            whole, ready, pools = end_to_end(path, replace(config, memory=memory), place / name)
            peak = high_water() / 1024
            again = bare(path, config, place / f"bare {name}")  # beside it: machines change pace
            best = Seconds(*map(min, zip(best, again, strict=True)))
            print(
                f"  {name:13}  {1 / whole.wall:9,.0f} tokens/s of {1 / best.wall:9,.0f} of the bare step: "
                f"{best.wall / whole.wall:6.1%}, by processor time {best.processor / whole.processor:6.1%}; "
                f"{pools} pool(s) an epoch, first step after {ready:.1f} s, peak {peak:,.0f} MiB"
            )


if __name__ == "__main__":
    main(tyro.cli(Options))
