"""Held-out error of batches made of chunks against independently drawn tokens, at equal tokens.

    python benchmarks/sampling.py [--tokens 153600 614400] [--ways 1 16 16/4 64] [--seeds 2] [--store s.zarr]

Captures the embedded host's held-out sample (or takes `--store`), then trains the same dictionary on one head's states
with every way of sampling: `1` draws every token on its own, `16` whole chunks of 16 tokens, `16/4` chunks of 16 of
which a step takes every 4th token (`stride`). Prints the held-out MSE relative to the first way, and the processor time
of a step.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import tyro
from train_end_to_end import advance

from writesae.sae import TopK, evaluate
from writesae.sae.workspace import Workspace
from writesae.store import StreamStore, open_store
from writesae.training import TrainConfig
from writesae.training.log import Loggers
from writesae.training.loop import Run
from writesae.training.process import cpu_threads
from writesae.types import Site


@dataclass(frozen=True)
class Options:
    """Compare ways of sampling."""

    tokens: tuple[int, ...] = (153_600, 614_400)
    """Tokens of a run."""
    ways: tuple[str, ...] = ("1", "16", "64", "16/4", "4")
    """Chunk, or chunk/stride."""
    seeds: int = 1
    """Runs of each."""
    site: str = "L5.H0"
    """Head."""
    features: int = 512
    """Atoms."""
    k: int = 16
    """Active atoms a token."""
    lr: float = 1e-3
    """Learning rate after the warm-up; a tenth of it at the end."""
    batch: int = 256
    """Tokens a step."""
    store: Path | None = None
    """A store that is there already."""


def sample_store(folder: Path) -> StreamStore:
    """The streams of the embedded host over its held-out text."""
    from writesae.corpus import text
    from writesae.hosts import load
    from writesae.store import capture

    host = load("tiny-gdn")
    blocks = text("sample", host, 256).blocks(1100)
    return capture(host, blocks, [5], folder, progress=lambda done, total: None)


def trained(store: StreamStore, config: TrainConfig, out: Path) -> tuple[float, float]:
    """Held-out MSE and milliseconds of processor time a step."""
    run = Run(store, config, out)
    left, work = run.begin(Loggers([])), Workspace()
    started = time.process_time()
    for batch in left:
        advance(run, batch, work)
    seconds = time.process_time() - started
    run.sae.normalise_()
    return evaluate(run.sae, run.held_out, run.scale).mse, 1e3 * seconds / run.step


def main(options: Options) -> None:
    """Train every way, print a table."""
    with tempfile.TemporaryDirectory() as folder, cpu_threads(1):
        store = open_store(options.store) if options.store else sample_store(Path(folder) / "s.zarr")
        for tokens in options.tokens:
            for seed in range(options.seeds):
                first = None
                for way in options.ways:
                    chunk, _, stride = way.partition("/")
                    config = TrainConfig(
                        site=Site.parse(options.site),
                        features=options.features,
                        sparsity=TopK(options.k),
                        steps=tokens // options.batch,
                        batch=options.batch,
                        chunk=int(chunk),
                        stride=int(stride or 1),
                        lr=options.lr,
                        lr_end=options.lr / 10,
                        validate_every=0,
                        checkpoint_every=10**9,
                        device="cpu",
                        seed=seed,
                    )
                    mse, ms = trained(store, config, Path(folder) / f"{tokens} {seed} {way.replace('/', 'of')}")
                    first = first or mse
                    print(
                        f"{tokens:9,} tokens, seed {seed}, chunk {way:6} MSE {mse:.3e}  {mse / first - 1:+6.1%}  "
                        f"{ms:6.1f} ms a step",
                        flush=True,
                    )


if __name__ == "__main__":
    main(tyro.cli(Options))
