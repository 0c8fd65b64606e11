"""Every evaluation of a host, from nothing to one report, and the summaries that the docs' tables are made of.

    python benchmarks/all_evaluations.py --out everything [--host tiny-gdn] [--docs docs/results]

Captures the training part of the sample, trains a dictionary of states and one of writes (the latter from three seeds)
on the head that the audit picks, runs every evaluation on the other part, and writes one report. What is finished is
kept: the same command goes on where it stopped. With `--docs` the summaries are copied there; `docs/tables.py` makes
the tables of the docs of them.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

import writesae as ws
from writesae.errors import WritesaeError
from writesae.evals import EVALUATIONS
from writesae.hosts import Host
from writesae.sae import SAE
from writesae.types import Site, Target

TARGETS: dict[str, Target] = {"states": "state", "writes": "write-delta"}
SEEDS = (0, 1, 2)
SLOW: dict[str, dict[str, Any]] = {
    "sign": {"passages": 1000},
    "installs": {"passages": 100},
    "proper_nouns": {"passages": 400, "contexts": 100},
    "amplification": {"passages": 60, "found_on": 40},
}
"""Fewer than the defaults of those that take minutes."""


@dataclass(frozen=True)
class Options:
    """Run every evaluation."""

    out: Path
    """Folder of everything."""
    host: str = "tiny-gdn"
    """An embedded host, a local folder, or a Hub id."""
    site: str | None = None
    """Head of the dictionaries; the one that the audit picks if not said."""
    tokens: int = 200_000
    """Tokens to capture."""
    features: int = 1024
    """Atoms a dictionary."""
    k: int = 16
    """Active atoms a token."""
    train_tokens: int = 1_000_000
    """Tokens seen in training, a dictionary."""
    passages: int = 64
    """Held-out passages of 256 tokens, where an evaluation has no number of its own."""
    docs: Path | None = None
    """Copy the summaries here, by host."""


def dictionaries(options: Options, model: Host, site: Site, train: ws.Text) -> dict[str, list[SAE]]:
    """Those of states and of writes, the latter from several seeds."""
    store = ws.capture(model, train, layers=[site.layer], out=options.out / "streams.zarr", tokens=options.tokens)
    found: dict[str, list[SAE]] = {name: [] for name in TARGETS}
    for name, target in TARGETS.items():
        for seed in SEEDS if name == "writes" else SEEDS[:1]:
            result = ws.train(
                store, site=site, target=target, features=options.features, k=options.k, seed=seed,
                steps=options.train_tokens // 2048, batch=2048, lr=3e-3, lr_end=3e-4, init="writes", validation=0.1,
                out=options.out / "train" / f"{name}-{seed}",
            )  # fmt: skip
            found[name].append(result.sae)
    return found


def main(options: Options) -> None:
    """Run, report, copy."""
    model = ws.load(options.host)
    train, test = ws.text("sample", model, length=256).split(0.8)
    results = options.out / "results"
    audit = EVALUATIONS["spectrum"](model, test, passages=8, out=results / "spectrum")
    site = Site.parse(options.site or audit.summary.default_site)
    saes = dictionaries(options, model, site, train)

    def run(name: str, what: str, *given: Any, folder: str = "", **more: Any) -> None:
        place = results / (folder or (f"{name}-{what}" if what else name))
        own = SLOW.get(name) or {
            "passages": EVALUATIONS[name].passages if EVALUATIONS[name].length else options.passages
        }
        try:
            said = str(EVALUATIONS[name](model, *given, test, out=place, **own, **more))
        except WritesaeError as error:
            said = f"refused: {error}"
        print(f"{place.name}: {said}\n", flush=True)

    for name, one in EVALUATIONS.items():
        if one.takes in ("one", "heads"):
            for what, group in saes.items():
                run(name, what, group[0])
        elif one.takes == "seeds":
            run(name, "writes", saes["writes"])
    for what, group in saes.items():
        run("substitution", what, group[0], preset="grid", folder=f"grid-{what}")
        sizes: dict[str, Any] = {"timings": "after_token", "amplitudes": ("coefficient", "norm", "projection")}
        run("substitution", what, group[0], folder=f"sizes-{what}", **sizes)
    run("boundary", "", saes["states"][0], folder="boundary-states-increment", reading="increment")
    features = {"choose": "features", "among": "register", "most": 60}
    run("substitution", "", saes["states"][0], preset="grid", folder="grid-features-states", **features)
    run("sign", "", site=site)
    for name in ("installs", "proper_nouns"):
        run(name, "one-head", site=site)
    run("installs", "all-heads", site="all", timings="at_token")
    run("erasure", "measured", saes["writes"][0], follow="measured")
    print(ws.report(results))
    if options.docs is not None:
        for path in sorted(results.rglob("summary.json")):
            place = options.docs / options.host / path.parent.relative_to(results)
            place.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place / path.name)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
