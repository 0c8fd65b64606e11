"""What workers of a cluster gain: capture and training of several heads, in this process and by one and two of them.

    python benchmarks/cluster_speed.py [--host tiny-gdn] [--tokens 60000] [--heads 8] [--steps 150]

Everything runs on one thread each. What Ray and its workers take to start, with the host in each, is told apart: a
first small capture makes them ready. Needs the ray extra, and idle cores: two of them for two workers.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import ray
import torch
import tyro
from rich.console import Console
from rich.table import Table

import writesae as ws
from writesae.cluster import Cluster
from writesae.training import train_many
from writesae.training.recipe import recipe


@dataclass(frozen=True)
class Options:
    """Measure workers of a cluster on this machine."""

    host: str = "tiny-gdn"
    """An embedded host."""
    layer: int = 5
    """Captured."""
    tokens: int = 60_000
    """Captured."""
    heads: int = 8
    """Dictionaries trained; more than the layer has heads are further seeds."""
    steps: int = 150
    """Of each."""


def timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main(options: Options) -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    host = ws.load(options.host)
    train, _ = ws.text("sample", host, length=128).split()
    place, heads = Path(tempfile.mkdtemp()), host.layers[options.layer].heads
    own = {"features": 512, "k": 16, "steps": options.steps, "batch": 1024, "validate_every": 0, "device": "cpu"}
    configs = [
        recipe(None, {"site": ws.Site(options.layer, number % heads), "seed": number // heads, **own})
        for number in range(options.heads)
    ]

    def capture(name: str, tokens: int, cluster: Cluster | None) -> ws.StreamStore:
        layers, quiet = [options.layer], lambda done, total: None
        return ws.capture(host, train, layers, place / name, tokens=tokens, progress=quiet, cluster=cluster)

    store = capture("store", options.tokens, None)
    rows, base = [], (0.0, 0.0)
    for workers in (0, 1, 2):
        cluster, start = Cluster(workers=workers) if workers else None, 0.0
        if cluster is not None:
            start = timed(lambda: ray.init(num_cpus=workers, include_dashboard=False, logging_level="error"))  # noqa: B023
            start += timed(lambda: capture(f"ready{workers}", 40 * 128 * workers, cluster))  # noqa: B023
        took = (
            timed(lambda: capture(f"captured{workers}", options.tokens, cluster)),  # noqa: B023
            timed(lambda: train_many(store, configs, place / f"trained{workers}", cluster=cluster)),  # noqa: B023
        )
        base = took if workers == 1 else base
        gain = [f" ({one / now:.2f}x)" if workers == 2 else "" for one, now in zip(base, took, strict=True)]
        rows.append(
            (str(workers or "none"), f"{start:.1f} s", *(f"{s:.1f} s{g}" for s, g in zip(took, gain, strict=True)))
        )
        if cluster is not None:
            ray.shutdown()
    table = Table("workers", "start", f"capture, {options.tokens:,} tokens", f"training, {options.heads} dictionaries")
    for row in rows:
        table.add_row(*row)
    Console(width=120).print(table)


if __name__ == "__main__":
    main(tyro.cli(Options))
