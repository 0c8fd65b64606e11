"""Values of one axis beside each other, matched: over the same combinations of everything else, with intervals over
seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

from writesae.evals.common.stats import Interval

SEED = "seed"


@dataclass(frozen=True)
class Level:
    """One value of an axis, in one number."""

    value: str
    runs: int
    """That were compared: those whose partners at every other value are there too."""
    mean: float
    interval: Interval
    """95 % of the mean over seeds, Student's; none of fewer than three."""
    difference: float
    """From the axis' first value."""
    difference_interval: Interval
    """Of it, over seeds."""


def levels(table: pd.DataFrame, grid: Sequence[str], axis: str, number: str) -> list[Level]:
    """The values of `axis` in their order, compared in the column `number`, as far as they have one; none where nothing
    is matched."""
    others = [name for name in ("host", *grid) if name != axis]
    values = list(dict.fromkeys(table[axis]))
    wide = table.pivot(index=others, columns=axis, values=number)
    wide = wide.reindex(columns=values).dropna(axis="columns", how="all").dropna()
    values = list(wide.columns)
    if wide.empty:
        return []
    seeds = wide.index.get_level_values(SEED) if SEED in wide.index.names else np.zeros(len(wide))
    by_seed = wide.groupby(np.asarray(seeds)).mean()
    first = by_seed[values[0]]
    return [
        Level(
            str(value), len(wide), float(by_seed[value].mean()), over_seeds(by_seed[value]),
            float((by_seed[value] - first).mean()), over_seeds(by_seed[value] - first),
        )
        for value in values
    ]  # fmt: skip


def over_seeds(values: ArrayLike) -> Interval:
    """Student's 95 % interval of the mean of one value a seed; NaN for fewer than three, whose spread is hardly known
    (of two it would be 18 times as wide as their distance)."""
    x = np.asarray(values, float)
    if len(x) < 3:
        return Interval(float("nan"), float("nan"))
    half = float(stats.t.ppf(0.975, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x)))
    return Interval(float(x.mean()) - half, float(x.mean()) + half)
