"""What the records of a logit-shift evaluation say: functions of the records alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from writesae.evals.common.stats import r_squared, scaled_r_squared
from writesae.evals.old.configs import LogitShiftConfig
from writesae.types import Timing

PREDICTORS = ("closed", "direct", "exact")
MEASURABLE = 30.0
"""An atom counts at an epsilon where its effect is this many times the rounding of the logits (root mean square)."""
CELL = ["feature", "protocol", "epsilon", "horizon"]
"""What makes an item."""


@dataclass(frozen=True)
class Fit:
    """One predictor over one part of the grid."""

    predictor: str
    epsilon: float
    horizon: int
    atoms: int
    """With a measurable effect."""
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
    protocol: Timing = "after_token"
    """Whether the edited token read the edited state itself."""


@dataclass(frozen=True)
class RankFit:
    """One predictor over all tokens of one native rank."""

    predictor: str
    rank: int
    r2_pooled: float
    sign: float
    protocol: Timing = "after_token"


@dataclass(frozen=True)
class CellFit:
    """One predictor with one factor fitted a cell (passage, atom, position, token) over all epsilons, as published.

    Whatever the predictor, this measures only whether the change is proportional to epsilon.
    """

    predictor: str
    r2_pooled: float
    """nan with a single epsilon, where every cell fits itself."""
    protocol: Timing = "after_token"


@dataclass(frozen=True)
class LogitShiftSummary:
    """How well each predictor does."""

    fits: tuple[Fit, ...]
    by_rank: tuple[RankFit, ...]
    """At the smallest epsilon."""
    by_cell: tuple[CellFit, ...]
    noise: float
    """Root mean square difference of native logits between two ways to compute them: the rounding."""
    precision: str
    """Of the host that was measured: `float32` (as it was loaded) or `float64`."""

    def fit(self, predictor: str, epsilon: float, horizon: int, protocol: Timing = "after_token") -> Fit:
        """One cell of the grid."""
        wanted = (predictor, epsilon, horizon, protocol)
        return next(f for f in self.fits if (f.predictor, f.epsilon, f.horizon, f.protocol) == wanted)


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


def _sign(table: pd.DataFrame, predictor: str, floor: float) -> float:
    loud = table[table.measured.abs() > MEASURABLE * floor]
    return float((np.sign(loud.measured) == np.sign(loud[predictor])).mean()) if len(loud) else float("nan")


def summarise(records: pd.DataFrame, config: LogitShiftConfig) -> LogitShiftSummary:
    """The summary of the records; nothing else enters it."""
    floor = _floor(records)
    loud = records[measurable(records).to_numpy()]
    fits, ranks, cells = [], [], []
    for timing in config.timings:
        for predictor in PREDICTORS:
            for _, cell in loud[loud.protocol == timing].groupby(["epsilon", "horizon"]):
                fits.append(_fit(cell, predictor, timing, floor))
            small = loud[(loud.protocol == timing) & (loud.epsilon == records.epsilon.min())]
            for _, cell in small.groupby("rank"):
                pooled, sign = r_squared(cell.measured, cell[predictor]), _sign(cell, predictor, floor)
                ranks.append(RankFit(predictor, int(cell["rank"].iloc[0]), pooled, sign, timing))
            cells.append(CellFit(predictor, _cell_fit(loud[loud.protocol == timing], predictor), timing))
    return LogitShiftSummary(tuple(fits), tuple(ranks), tuple(cells), floor, str(records.precision.iloc[0]))


def _cell_fit(records: pd.DataFrame, predictor: str) -> float:
    """R^2 over all records after each cell's predictions are multiplied by the one number that fits it best."""
    if records.epsilon.nunique() < 2:
        return float("nan")
    keys = [records[name] for name in ("passage", "feature", "horizon", "rank")]
    products, squares = (
        (records[predictor] * records[name]).groupby(keys).transform("sum") for name in ("measured", predictor)
    )
    return r_squared(records.measured, records[predictor] * (products / squares).fillna(0.0))


def _fit(cell: pd.DataFrame, predictor: str, timing: Timing, floor: float) -> Fit:
    by_atom = [atom for _, atom in cell.groupby("feature")]
    plain = [r_squared(atom.measured, atom[predictor]) for atom in by_atom]
    fitted = [scaled_r_squared(atom.measured, atom[predictor]) for atom in by_atom]
    return Fit(
        predictor,
        float(cell.epsilon.iloc[0]),
        int(cell.horizon.iloc[0]),
        len(by_atom),
        r2=float(np.median(plain)),
        r2_least=float(np.min(plain)),
        r2_pooled=r_squared(cell.measured, cell[predictor]),
        r2_fitted=float(np.median(fitted)),
        sign=_sign(cell, predictor, floor),
        protocol=timing,
    )
