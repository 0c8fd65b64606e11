"""`recall` on the memory hosts that can be loaded here, with the dictionaries that ship and those that
`recipes/memory/learn.py` made: what tables of the docs say.

    python benchmarks/recall.py --out recalled [--hosts memory-gdn] [--dictionaries learnt] [--docs docs/results]

What is finished is kept: the same command goes on where it stopped. With `--docs` the summaries are copied there;
`docs/tables.py` makes the tables of the docs of them.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

import writesae as ws
from writesae.artifacts.shipped import NAMES as DICTIONARIES
from writesae.hosts.inventory import shipped
from writesae.quickstart.config import NAMES, THINGS


@dataclass(frozen=True)
class Options:
    """Run `recall`."""

    out: Path
    """Folder of the results."""
    hosts: tuple[str, ...] = ()
    """Memory hosts; all that need nothing that is not installed if none is said."""
    dictionaries: Path | None = None
    """Folder with what learn.py made, a folder a host, in the place of what ships."""
    passages: int = 32
    """Passages whose facts are asked for."""
    found_on: int = 6
    """Passages on which the writes are looked for."""
    pairs_on: int = 160
    """Passages on which known pairs are collected."""
    docs: Path | None = None
    """Copy the summaries here, by host."""


def main(options: Options) -> None:
    """Run, copy."""
    here = [one.name for one in shipped() if one.name.startswith("memory-") and not one.needs]
    how: dict[str, Any] = {"passages": options.passages, "found_on": options.found_on, "pairs_on": options.pairs_on}
    for name in options.hosts or here:
        host = ws.load(name)
        _, test = ws.text("sample", host).split()
        saes, cells = dictionaries(name, options.dictionaries), ()
        runs: dict[str, tuple[Any, ...]] = {"recall": (), **({"recall-atoms": (saes,)} if saes else {})}
        for what, given in runs.items():
            place = options.out / name / what
            taught: dict[str, Any] = {"names": NAMES, "things": THINGS, "cells": cells} if given else {}
            result = ws.evals.recall(host, *given, test, out=place, **how, **taught)
            cells = result.summary.cells  # a host's: found once, on all pairs
            print(result, flush=True)
            if options.docs is not None:
                copied = options.docs / name / what
                copied.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(place / "summary.json", copied / "summary.json")


def dictionaries(host: str, learnt: Path | None) -> list[ws.SAE]:
    """Of states and of writes, of every head that holds a fact; none where there are none."""
    own: list[Path] = sorted(p.parent for p in (learnt / host).glob("L*/manifest.json")) if learnt is not None else []
    return [ws.load_sae(one) for one in own or [name for name in DICTIONARIES if name.startswith(f"{host}/")]]


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
