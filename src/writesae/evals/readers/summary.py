"""What the records say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
import pandas as pd

from writesae.evals.common.conditions import ADDED_WHERE, cells
from writesae.evals.common.floor import above
from writesae.evals.common.stats import Interval, clustered
from writesae.evals.readers.config import ReadersConfig
from writesae.types import NativeWrite, Timing

ADDED = ("atom", "random")
"""What is added to the state in turn, at the native write's norm."""
PART = ("timing", "native_write")
COLUMNS = ADDED_WHERE | {
    "reader": "the later head",
    "atom": "norm of what the atom changes in its output",
    "random": "the same by a random write of the same norm",
    "floor": "the same by rounding alone",
}


@dataclass(frozen=True)
class Reader:
    """A later head and how it reads one atom."""

    feature: int
    site: str
    ratio: float
    """Median change by the atom over median change by random directions."""


@dataclass(frozen=True)
class Cell:
    """Over atoms and later heads, under one timing and form of the native write."""

    timing: Timing
    native_write: NativeWrite
    atoms: int
    heads: int
    readings: int
    above: float
    """Share of readings in which both the atom and the random write change more than rounding does."""
    median: float
    """Median ratio over atoms and heads."""
    mean: float
    """Geometric mean ratio."""
    interval: Interval
    """Of it, bootstrap over atoms."""
    above_median: float
    """Median ratio of the readings above rounding alone."""
    strongest: tuple[Reader, ...]
    """Each atom's strongest reader, strongest first."""


@dataclass(frozen=True)
class Summary:
    """By timing and form of the native write."""

    cells: tuple[Cell, ...]


def summarise(tables: Mapping[str, pd.DataFrame], config: ReadersConfig) -> Summary:
    """The summary of the records."""
    return Summary(tuple(_cell(key, own, config.seed) for key, own in cells(tables["records"], PART)))


def ratios(records: pd.DataFrame) -> pd.DataFrame:
    """One row an atom and later head: the median reading over the median random one, where there is one."""
    medians = records.groupby(["feature", "reader"], sort=False)[list(ADDED)].median()
    medians = medians[medians["random"] > 0]
    return (medians["atom"] / medians["random"]).rename("ratio").reset_index()


def _cell(key: tuple[str, ...], records: pd.DataFrame, seed: int) -> Cell:
    table, effect = ratios(records), records[list(ADDED)].min(axis=1)
    seen = pd.Series(False, records.index)
    for _, own in records.groupby("reader"):  # heads' outputs have scales of their own
        seen[own.index] = above(np.square(effect[own.index]), np.square(own.floor))
    logs = np.log(table.ratio.clip(lower=1e-12).to_numpy())
    interval = clustered(logs, table.feature.to_numpy(), seed)
    best = table.loc[table.groupby("feature").ratio.idxmax()].sort_values("ratio", ascending=False)
    return Cell(
        cast(Timing, key[0]), cast(NativeWrite, key[1]),
        int(records.feature.nunique()), int(records.reader.nunique()), len(records), float(seen.mean()),
        float(table.ratio.median()), float(np.exp(logs.mean())) if len(logs) else float("nan"),
        Interval(*(float(np.exp(bound)) for bound in interval)), float(ratios(records[seen]).ratio.median()),
        tuple(Reader(int(r["feature"]), str(r["reader"]), float(r["ratio"])) for r in best.to_dict("records")),
    )  # fmt: skip
