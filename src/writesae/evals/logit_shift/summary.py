"""What the records say. R^2 is given with nothing fitted, and with one factor fitted a cell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
import pandas as pd

from writesae.evals.common.stats import Interval, clustered, r_squared, scaled_r_squared
from writesae.evals.logit_shift.config import LogitShiftConfig
from writesae.types import NativeWrite, Timing

PREDICTORS = ("closed", "direct", "exact")
MEASURABLE = 30.0
"""An atom counts at an epsilon where its effect is this many times the rounding of the logits (root mean square)."""
PART = ["timing", "native_write"]
CELL = ["feature", *PART, "epsilon", "horizon"]
"""What makes an item."""
COLUMNS = {
    "feature": "the atom that is added",
    "passage": "number of the passage",
    "position": "token within it at which the atom is added",
    "token": "the token whose logit is read",
    "timing": "whether the edited token reads the edited state itself (at_token) or not (after_token)",
    "native_write": "the form of the native write whose median norm is the unit of epsilon",
    "epsilon": "size of the write, in median native writes",
    "horizon": "scored position at which the logit is read, counted from 1",
    "rank": "rank of the token in the native distribution there",
    "measured": "change of its logit",
    "closed": "the same by the closed form",
    "direct": "the same by the direct path",
    "exact": "the same by the exact first order",
    "noise": "difference of the native logit between two ways to compute it",
    "precision": "of the host that was measured: float32 (as it was loaded) or float64",
}


@dataclass(frozen=True)
class Fit:
    """One predictor over one part of the grid."""

    predictor: str
    timing: Timing
    native_write: NativeWrite
    epsilon: float
    horizon: int
    atoms: int
    """With a measurable effect."""
    above: float
    """These as a share of the atoms that fire."""
    r2: float
    """Nothing fitted, median over atoms."""
    r2_least: float
    """Smallest over atoms."""
    r2_pooled: float
    """Nothing fitted, all atoms together."""
    r2_fitted: float
    """One factor fitted an atom, median over atoms."""
    sign: float
    """Share of effects beyond the rounding whose sign is as predicted."""
    sign_interval: Interval
    """Bootstrap over passages."""


@dataclass(frozen=True)
class RankFit:
    """One predictor over all tokens of one native rank."""

    predictor: str
    timing: Timing
    native_write: NativeWrite
    rank: int
    r2_pooled: float
    sign: float


@dataclass(frozen=True)
class CellFit:
    """One predictor with one factor fitted a cell (passage, atom, position, token) over all epsilons, as published.

    Whatever the predictor, this measures only whether the change is proportional to epsilon.
    """

    predictor: str
    timing: Timing
    native_write: NativeWrite
    r2_pooled: float
    """nan with a single epsilon, where every cell fits itself."""


@dataclass(frozen=True)
class Summary:
    """How well each predictor does."""

    fits: tuple[Fit, ...]
    by_rank: tuple[RankFit, ...]
    """At the smallest epsilon."""
    by_cell: tuple[CellFit, ...]
    noise: float
    """Root mean square difference of native logits between two ways to compute them: the rounding."""
    precision: str
    """Of the host that was measured: `float32` (as it was loaded) or `float64`."""

    def fit(self, predictor: str, epsilon: float, horizon: int, timing: Timing = "after_token") -> Fit:
        """One cell of the grid, of the first form of the native write."""
        wanted = (predictor, timing, self.fits[0].native_write, epsilon, horizon)
        return next(f for f in self.fits if (f.predictor, f.timing, f.native_write, f.epsilon, f.horizon) == wanted)


def hidden(records: pd.DataFrame) -> bool:
    """Whether rounding hides an effect at the smallest epsilon."""
    small = (records.epsilon == records.epsilon.min()).to_numpy()
    return bool((~measurable(records).to_numpy()[small]).any())


def measurable(records: pd.DataFrame) -> pd.Series[bool]:
    """For each row whether its (atom, timing, epsilon, horizon) has an effect above the rounding."""
    keys = [records[name] for name in CELL]
    effect = np.sqrt(records.measured.pow(2).groupby(keys).transform("mean"))
    flags: pd.Series[bool] = (effect > MEASURABLE * _floor(records)).set_axis(pd.MultiIndex.from_arrays(keys))
    return flags


def _floor(records: pd.DataFrame) -> float:
    return float(np.sqrt(records.noise.pow(2).mean()))


def summarise(tables: Mapping[str, pd.DataFrame], config: LogitShiftConfig) -> Summary:
    """The summary of the records."""
    records = tables["records"]
    floor = _floor(records)
    loud = records[measurable(records).to_numpy()]
    fits, ranks, cells = [], [], []
    for key, part in records.groupby(PART, sort=False):
        timing, form = cast(tuple[Timing, NativeWrite], key)
        own = loud[(loud.timing == timing) & (loud.native_write == form)]
        for predictor in PREDICTORS:
            where = (predictor, timing, form)
            for _, cell in own.groupby(["epsilon", "horizon"]):
                fits.append(_fit(where, cell, part.feature.nunique(), floor, config.seed))
            for rank, cell in own[own.epsilon == records.epsilon.min()].groupby("rank"):
                right = _right(cell, predictor, floor)
                pooled = r_squared(cell.measured, cell[predictor])
                ranks.append(RankFit(*where, int(str(rank)), pooled, float(right.mean()) if len(right) else np.nan))
            cells.append(CellFit(*where, _cell_fit(own, predictor)))
    return Summary(tuple(fits), tuple(ranks), tuple(cells), floor, str(records.precision.iloc[0]))


def _right(table: pd.DataFrame, predictor: str, floor: float) -> pd.Series[bool]:
    """For every effect beyond the rounding, by passage, whether its sign is as predicted."""
    loud = table[table.measured.abs() > MEASURABLE * floor]
    right: pd.Series[bool] = (np.sign(loud.measured) == np.sign(loud[predictor])).set_axis(loud.passage)
    return right


def _cell_fit(records: pd.DataFrame, predictor: str) -> float:
    """R^2 over all records after each cell's predictions are multiplied by the one number that fits it best."""
    if records.epsilon.nunique() < 2:
        return float("nan")
    keys = [records[name] for name in ("passage", "feature", "horizon", "rank")]
    products, squares = (
        (records[predictor] * records[name]).groupby(keys).transform("sum") for name in ("measured", predictor)
    )
    return r_squared(records.measured, records[predictor] * (products / squares).fillna(0.0))


def _fit(where: tuple[str, Timing, NativeWrite], cell: pd.DataFrame, asked: int, floor: float, seed: int) -> Fit:
    by_atom, predictor = [atom for _, atom in cell.groupby("feature")], where[0]
    plain = [r_squared(atom.measured, atom[predictor]) for atom in by_atom]
    fitted = [scaled_r_squared(atom.measured, atom[predictor]) for atom in by_atom]
    right = _right(cell, predictor, floor)
    return Fit(
        *where,
        float(cell.epsilon.iloc[0]),
        int(cell.horizon.iloc[0]),
        len(by_atom),
        len(by_atom) / asked,
        r2=float(np.median(plain)),
        r2_least=float(np.min(plain)),
        r2_pooled=r_squared(cell.measured, cell[predictor]),
        r2_fitted=float(np.median(fitted)),
        sign=float(right.mean()) if len(right) else float("nan"),
        sign_interval=clustered(right.to_numpy(), right.index.to_numpy(), seed),
    )
