"""16 heads trained in one pass (`train_many`) against 16 runs one after another, from the same store.

    python benchmarks/many_heads.py [--heads 16] [--d 64] [--features 1024] [--steps 60] [--device cpu]

Both train the same configurations from opening the store to the saved dictionaries, in the same process, in turns
(one pass, separate, one pass, separate, ...); the fastest of each counts. Prints both times, their ratio, the peak
memory of each, and whether the dictionaries are equal to the bit, as they must be.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro
from step_time import high_water
from train_end_to_end import RandomHost, forget

from writesae.sae import TopK
from writesae.store import capture, open_store
from writesae.training import TrainConfig, TrainResult, train, train_many
from writesae.types import Site


@dataclass(frozen=True)
class Options:
    """Measure training many heads at once."""

    heads: int = 16
    """Heads of the layer, all trained."""
    d: int = 64
    """Key and value side of a head."""
    features: int = 1024
    """Atoms of each dictionary."""
    k: int = 32
    """Active atoms a token."""
    sequences: int = 48
    """Sequences in the store."""
    length: int = 256
    """Tokens a sequence."""
    steps: int = 60
    """Steps of each run."""
    rounds: int = 2
    """Turns of each kind."""
    target: Literal["state", "write-delta"] = "state"
    """What is modelled."""
    device: str = "cpu"
    """Where the steps run."""
    threads: int = 1
    """CPU threads."""


def timed(path: Path, work: Callable[[], list[TrainResult]]) -> tuple[float, float, list[TrainResult]]:
    """Seconds of processor time on the CPU (wall time on a GPU), peak MiB of the process, and the results."""
    forget(path)
    Path("/proc/self/clear_refs").write_text("5")
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    started = clock()
    results = work()
    return clock() - started, high_water() / 1024, results


def main(options: Options) -> None:
    """Capture, train both ways in turns, compare, print."""
    base = TrainConfig(
        site=Site(0, 0),
        target=options.target,
        features=options.features,
        sparsity=TopK(options.k),
        steps=options.steps,
        validate_every=0,
        device=options.device,
        threads=options.threads,
    )
    configs = [replace(base, site=Site(0, head)) for head in range(options.heads)]
    tokens = np.random.default_rng(0).integers(0, 1 << 16, (options.sequences, options.length))
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        host = RandomHost(options.d, options.heads)
        path = capture(host, tokens, "all", place / "s.zarr", progress=lambda a, b: None).path
        train(open_store(path), replace(base, steps=2), place / "warm up")
        one, separate = [], []
        for turn in range(options.rounds):
            one.append(timed(path, lambda t=turn: train_many(open_store(path), configs, place / f"one {t}")))  # type: ignore[misc]
            separate.append(
                timed(
                    path,
                    lambda t=turn: [train(open_store(path), c, place / f"{t} {c.site}") for c in configs],  # type: ignore[misc]
                )
            )
    equal = all(
        torch.equal(a.sae.state_dict()[name], b.sae.state_dict()[name])
        for a, b in zip(one[0][2], separate[0][2], strict=True)
        for name in a.sae.state_dict()
    )
    together, apart = min(x[0] for x in one), min(x[0] for x in separate)
    print(f"{options.heads} heads of {options.d} x {options.d}, {options.features:,} features, {options.steps} steps")
    print(f"  in one pass   {together:7.1f} s, peak {max(x[1] for x in one):,.0f} MiB")
    print(f"  one by one    {apart:7.1f} s, peak {max(x[1] for x in separate):,.0f} MiB")
    print(f"  one pass takes {together / apart:.2f} of the time; results {'equal to the bit' if equal else 'DIFFER'}")


if __name__ == "__main__":
    main(tyro.cli(Options))
