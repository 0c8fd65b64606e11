"""Memory and time as work grows: capture, training and the substitution test at 1, 4 and 16 times the work.

    python benchmarks/growth.py [--host tiny-mamba2] [--tokens 12000] [--passages 8]

Each is run in a process of its own on one thread; printed are its processor time and peak memory, and the exponents of
a power law through the three: 1 in time is linear, 0 in memory flat. What a process holds before it begins (the host,
the libraries) is taken off neither.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

TIMES = (1, 4, 16)


@dataclass(frozen=True)
class Options:
    """Measure how memory and time grow."""

    host: str = "tiny-mamba2"
    """An embedded host."""
    site: str = "L4.H0"
    """Whose writes are modelled and replaced."""
    tokens: int = 12_000
    """Captured, and trained on once, at 1x."""
    passages: int = 8
    """Of the test at 1x, with 20 firings each."""
    part: str = ""
    """Run one part in this process: `capture`, `train` or `substitution`."""
    times: int = 1
    """At so many times the work."""
    place: Path = Path()
    """Folder of its store and dictionary."""


def work(options: Options) -> None:
    """One part at one size; prints its processor seconds and peak memory in MiB."""
    import torch

    import writesae as ws

    torch.set_num_threads(1)
    size, store = options.tokens * options.times, options.place / f"{options.times}.zarr"
    site = ws.Site.parse(options.site)
    if options.part != "train":
        host = ws.load(options.host)
        train, test = ws.text("sample", host, length=128).split()
    started = time.process_time()
    if options.part == "capture":
        ws.capture(host, train, [site.layer], store, tokens=size, progress=lambda done, total: None)
    elif options.part == "train":
        own = {
            "features": 256,
            "k": 8,
            "epochs": 1.0,
            "batch": 512,
            "validate_every": 0,
            "init": "writes",
            "memory": 0.01,
        }
        ws.train(
            ws.open_store(store),
            site=site,
            target="write-delta",
            device="cpu",
            out=options.place / f"{options.times}",
            **own,
        )
    else:
        sae, passages = ws.load_sae(options.place / "1"), options.passages * options.times
        ws.evals.substitution(host, sae, test, passages=passages, firings=20 * passages)
    print(time.process_time() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def exponent(values: list[float]) -> float:
    """Slope of the logarithms over those of the work."""
    return float(np.polyfit(np.log(TIMES), np.log(values), 1)[0])


def main(options: Options) -> None:
    """Every part at every size, and the table."""
    table = Table("part", *(f"{times}x" for times in TIMES), "exponent of time", "of peak memory")
    with tempfile.TemporaryDirectory() as place:
        for part in ("capture", "train", "substitution"):
            found = []
            for times in TIMES:
                own = [
                    "--part",
                    part,
                    "--times",
                    str(times),
                    "--place",
                    place,
                    "--host",
                    options.host,
                    "--site",
                    options.site,
                ]
                sizes = ["--tokens", str(options.tokens), "--passages", str(options.passages)]
                done = subprocess.run(
                    [sys.executable, __file__, *own, *sizes], stdout=subprocess.PIPE, text=True, check=True
                )
                found.append([float(x) for x in done.stdout.split()[-2:]])
            seconds, memory = map(list, zip(*found, strict=True))
            cells = [f"{s:.1f} s, {m:,.0f} MiB" for s, m in found]
            table.add_row(part, *cells, f"{exponent(seconds):.2f}", f"{exponent(memory):.2f}")
    Console(width=140).print(table)


if __name__ == "__main__":
    given = tyro.cli(Options)
    work(given) if given.part else main(given)
