"""Capture, train and evaluate in turn in one process for an hour: what it holds must not grow.

    python benchmarks/soak.py [--minutes 60] [--limit 4]

Prints, of every round, resident memory, open files, threads and temporary files, and memory's slope an hour over the
second half with its 95% interval: by rounds drawn again in blocks, as neighbours are alike. Fails where that interval
lies above the allowed growth, or where there are more files, threads or temporary files at the end than at first.
`--limit` GiB of address space beyond what is mapped at the start are all that there is.
"""

from __future__ import annotations

import argparse
import gc
import os
import resource
import shutil
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

import writesae as ws
from writesae.evals import partition, substitution
from writesae.sae import TopK
from writesae.training import TrainConfig, train

ALLOWED = 64.0
"""Growth of resident memory, MiB an hour, that the interval must not lie above."""


class Held(NamedTuple):
    """What the process holds after a round."""

    minutes: float
    memory: float
    """Resident, MiB."""
    files: int
    threads: int
    temporary: int


def now(began: float, temporary: Path) -> Held:
    """Of this moment."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    held = len(os.listdir("/proc/self/fd")) - 1  # that of the listing itself
    minutes = (time.monotonic() - began) / 60
    return Held(
        minutes, pages * resource.getpagesize() / 2**20, held, threading.active_count(), len(list(temporary.iterdir()))
    )


def one_round(host: ws.Host, text: ws.Text, out: Path, seed: int) -> None:
    """A store, a dictionary, two results, and all of it is thrown away."""
    train_text, test = text.split(0.8)
    store = ws.capture(host, train_text, [5], out / "store", tokens=4096, progress=lambda *_: None)
    config = TrainConfig(
        site=ws.Site(5, 0), target="write-delta", features=101, sparsity=TopK(5), steps=40, batch=256, seed=seed
    )
    sae = train(store, config, out / "run").sae
    substitution(host, sae, test, passages=4, firings=40, seed=seed, out=out / "substitution")
    partition(host, sae, test, passages=4, seed=seed, out=out / "partition")
    shutil.rmtree(out)


def slope(rounds: list[Held], name: str) -> tuple[float, float, float]:
    """Change an hour over the rounds, and its 95% interval by rounds drawn again in blocks."""
    hours = np.array([one.minutes for one in rounds]) / 60
    values = np.array([float(getattr(one, name)) for one in rounds])
    block, draw = max(1, len(rounds) // 8), np.random.default_rng(0)
    starts = draw.integers(0, len(rounds) - block + 1, (1000, -(-len(rounds) // block)))
    slopes = []
    for start in starts:
        at = (start[:, None] + np.arange(block)).ravel()
        slopes.append(np.polyfit(hours[at], values[at], 1)[0] if np.ptp(hours[at]) else 0.0)
    low, high = np.percentile(slopes, [2.5, 97.5])
    return float(np.polyfit(hours, values, 1)[0]), float(low), float(high)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--limit", type=float, default=4.0, help="GiB")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    host = ws.load("tiny-gdn")
    text = ws.text("sample", host, length=64)
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    most = mapped + int(asked.limit * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    with tempfile.TemporaryDirectory() as folder:
        place, temporary = Path(folder) / "work", Path(folder) / "tmp"
        temporary.mkdir()
        tempfile.tempdir = os.environ["TMPDIR"] = str(temporary)
        began, rounds = time.monotonic(), list[Held]()
        print("round  minutes  memory, MiB  files  threads  temporary")
        while len(rounds) < 4 or (time.monotonic() - began) / 60 < asked.minutes:
            one_round(host, text, place, len(rounds))
            rounds.append(now(began, temporary))
            told = rounds[-1]
            print(f"{len(rounds):5d}  {told.minutes:7.1f}  {told.memory:11.1f}  {told.files:5d}  {told.threads:7d}  "
                  f"{told.temporary:9d}", flush=True)  # fmt: skip
    late, first, last = rounds[len(rounds) // 2 :], rounds[0], rounds[-1]
    change, low, high = slope(late, "memory")
    print(f"{len(rounds)} rounds in {last.minutes:.1f} minutes; peak "
          f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")  # fmt: skip
    print(f"memory in the second half: {change:+.1f} MiB an hour [{low:+.1f}, {high:+.1f}]")
    grown = [name for name in ("files", "threads", "temporary") if getattr(last, name) > getattr(first, name)]
    for name in ("files", "threads", "temporary"):
        print(f"{name}: {getattr(first, name)} after the first round, {getattr(last, name)} after the last")
    if grown or (last.minutes > 5 and low > ALLOWED):
        print(f"grows: {', '.join(grown) or 'memory'}")
        return 1
    print("flat")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
