"""Every evaluation of a host, from nothing to one report.

    python benchmarks/all_evaluations.py --out everything [--host tiny-gdn]

Runs the quickstart, trains its dictionary of writes from two more seeds, runs each evaluation of `writesae eval` on the
dictionary of states and on that of writes through the command line, writes the report of them all and prints each
finding as a row of a Markdown table. What is finished is kept: the same command goes on where it stopped.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import tyro

from writesae.cli import main as writesae
from writesae.config import from_json
from writesae.evals.old.configs import EVALUATIONS
from writesae.page import plot
from writesae.store import open_store
from writesae.training import TrainConfig, train

TARGETS = ("state", "write")
MORE_SEEDS = (1, 2)


@dataclass(frozen=True)
class Options:
    """Run every evaluation."""

    out: Path
    """Folder of everything."""
    host: str = "tiny-gdn"
    """An embedded host, a local folder, or a Hub id."""


def more_seeds(run: Path) -> list[Path]:
    """The quickstart's dictionary of writes and the same from other seeds."""
    first = run / "train" / "write"
    config = from_json(TrainConfig, json.loads((first / "run.json").read_text())["config"])
    store = open_store(run / "streams.zarr")
    folders = [first / "sae"]
    for seed in MORE_SEEDS:
        train(store, replace(config, seed=seed), run.parent / f"seed{seed}")
        folders.append(run.parent / f"seed{seed}" / "sae")
    return folders


def main(options: Options) -> None:
    """Run, report, print."""
    run = options.out / "quickstart"
    if not (run / "report.html").exists():
        writesae(["quickstart", "--host", options.host, "--out", str(run)])
    seeds = more_seeds(run)
    results = options.out / "results"
    for name in EVALUATIONS:
        for target in ("all",) if name in ("spectrum", "seeds") else TARGETS:
            place = results / f"{name}-{target}"
            if (place / "summary.json").exists():
                continue
            saes = {"spectrum": [], "seeds": seeds}.get(name, [run / "train" / target / "sae"])
            given = ["--sae", *map(str, saes)] if saes else []
            writesae(["eval", name, "--host", options.host, *given, "--out", str(place)])
    writesae(["report", str(results)])
    for name in EVALUATIONS:
        for place in sorted(results.glob(f"{name}-*")):
            print(f"| {name} | {place.name.rpartition('-')[2]} | {plot(place).finding} |")


if __name__ == "__main__":
    main(tyro.cli(Options))
