"""The substitution test at heads by name, each with a dictionary of states trained for it: wins against the share.

    python benchmarks/heads.py --out heads [--heads tiny-gdn/L1.H0 tiny-mamba2/L0.H7] [--docs docs/results]

The default heads are those of `docs/findings/predictions.toml`. What is finished is kept: the same command goes on
where it stopped. With `--docs` the summaries are copied there.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import tyro

import writesae as ws
from writesae.types import Site


@dataclass(frozen=True)
class Options:
    """Train, test."""

    out: Path
    """Folder of everything."""
    heads: tuple[str, ...] = (
        "tiny-gdn/L1.H0", "tiny-gdn/L2.H4", "tiny-gdn/L4.H2", "tiny-gdn/L6.H1",
        "tiny-mamba2/L0.H7", "tiny-mamba2/L2.H3", "tiny-mamba2/L4.H5",
    )  # fmt: skip
    """Host and head."""
    tokens: int = 200_000
    """Tokens to capture."""
    train_tokens: int = 1_000_000
    """Tokens seen in training, a dictionary."""
    firings: int = 500
    """Writes replaced, a head."""
    passages: int = 64
    """Held-out passages of 256 tokens."""
    docs: Path | None = None
    """Copy the summaries here, by host."""


def main(options: Options) -> None:
    """Run, copy."""
    by_host: dict[str, list[Site]] = {}
    for name in options.heads:
        host, _, site = name.rpartition("/")
        by_host.setdefault(host, []).append(Site.parse(site))
    for host, sites in by_host.items():
        model, folder = ws.load(host), options.out / host
        train, test = ws.text("sample", model, length=256).split(0.8)
        layers = sorted({site.layer for site in sites})
        store = ws.capture(model, train, layers=layers, out=folder / "streams.zarr", tokens=options.tokens)
        for site in sites:
            sae = ws.train(
                store, site=site, target="state", features=1024, k=16, steps=max(1, options.train_tokens // 2048),
                batch=2048, lr=3e-3, lr_end=3e-4, init="writes", validation=0.1, out=folder / "train" / str(site),
                threads=1,
            ).sae  # fmt: skip
            place = folder / f"substitution-head-{site}"
            how = {"passages": options.passages, "firings": options.firings}
            print(ws.evals.substitution(model, sae, test, out=place, **how), flush=True)
            if options.docs is not None:
                copied = options.docs / host / place.name
                copied.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(place / "summary.json", copied / "summary.json")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
