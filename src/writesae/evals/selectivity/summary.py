"""What the records say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
import pandas as pd

from writesae.evals.common.conditions import ADDED, ADDED_WHERE, cells
from writesae.evals.common.floor import above
from writesae.evals.common.stats import Interval, clustered
from writesae.evals.selectivity.config import SelectivityConfig
from writesae.types import NativeWrite, Timing

AGAINST = ADDED[1:]
"""What an atom is compared with."""
PART = ("timing", "native_write")
COLUMNS = ADDED_WHERE | {
    "kl_*": "KL(native || patched) where this is added: atom, random, orthogonal_to_atom; nats",
    "floor": "KL between two native runs whose rounding differs, nats",
    "overlap_*": "share of the most moved tokens that the atom has in common with this direction",
}


@dataclass(frozen=True)
class Cell:
    """Under one timing and form of the native write: means over atoms of their means over firings."""

    timing: Timing
    native_write: NativeWrite
    atoms: int
    firings: int
    above: float
    """Share of firings at which all that was added moves more than rounding does."""
    selectivity: dict[str, float]
    """Against a random direction and one orthogonal to the atom."""
    intervals: dict[str, Interval]
    """Bootstrap over atoms."""
    above_selectivity: dict[str, float]
    """The same over the firings above rounding alone."""


@dataclass(frozen=True)
class Summary:
    """By timing and form of the native write."""

    cells: tuple[Cell, ...]


def summarise(tables: Mapping[str, pd.DataFrame], config: SelectivityConfig) -> Summary:
    """The summary of the records."""
    return Summary(tuple(_cell(key, own, config.seed) for key, own in cells(tables["records"], PART)))


def of_atoms(records: pd.DataFrame) -> pd.DataFrame:
    """One row an atom (the index): its mean selectivity against each direction."""
    own = 1 - records.groupby("feature")[[f"overlap_{name}" for name in AGAINST]].mean()
    return own.rename(columns=lambda name: str(name).removeprefix("overlap_"))


def _cell(key: tuple[str, ...], records: pd.DataFrame, seed: int) -> Cell:
    means = of_atoms(records)
    least = records[[f"kl_{name}" for name in ADDED]].min(axis=1)
    seen = above(least, records.floor)
    among = of_atoms(records[seen])
    return Cell(
        cast(Timing, key[0]), cast(NativeWrite, key[1]), len(means), len(records), float(np.mean(seen)),
        {name: float(means[name].mean()) for name in AGAINST},
        {name: clustered(means[name].to_numpy(), means.index.to_numpy(), seed) for name in AGAINST},
        {name: float(among[name].mean()) for name in AGAINST},
    )  # fmt: skip
