"""How often the sign was right, and how well the size was said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from writesae.evals.common.floor import stands_out
from writesae.evals.common.stats import Share, r_squared, share
from writesae.evals.sign.config import SignConfig
from writesae.types import DirectionKind, NativeWrite, Timing

Floats = NDArray[np.float64]

PREDICTORS = ("exact", "carried", "closed")

COLUMNS = {
    "passage": "context",
    "token": "target, a token id",
    "direction": "what is written: closed, exact or random",
    "timing": "after_token or at_token",
    "native_write": "the native write that the magnitude counts in: delta or value",
    "magnitude": "Frobenius norm of the write, in native writes",
    "change": "measured change of the target's logit",
    "floor": "largest change of any logit between two native rows of the same batch: rounding",
    "exact": "change that the exact first order says",
    "carried": "change that the closed form says with what the recurrence erases between",
    "closed": "change that the closed form says",
}


@dataclass(frozen=True)
class Row:
    """One direction, predictor, timing, native write and magnitude."""

    direction: DirectionKind
    predictor: str
    timing: Timing
    native_write: NativeWrite
    magnitude: float
    agreement: Share
    """Contexts whose logit moved the predicted way; one that moved nothing counts against it."""
    r2: float
    """Of the size of the change, with nothing fitted."""
    correlation: float
    above: float
    """Share of contexts whose change is above the rounding."""
    among: Share
    """The agreement among those."""


@dataclass(frozen=True)
class Summary:
    """The table."""

    rows: tuple[Row, ...]


def summarise(tables: Mapping[str, pd.DataFrame], config: SignConfig) -> Summary:
    """The summary of the records."""
    rows = []
    by = ["direction", "timing", "native_write", "magnitude"]
    for name, part in tables["records"].groupby(by, sort=False):
        direction, timing, form, magnitude = cast(tuple[DirectionKind, Timing, NativeWrite, float], name)
        change = part["change"].to_numpy(float)
        above, passage = stands_out(change, part["floor"]), part["passage"].to_numpy()
        for predictor in PREDICTORS:
            predicted = part[predictor].to_numpy(float)
            right = (np.sign(predicted) == np.sign(change)) & (change != 0)
            rows.append(
                Row(
                    direction, predictor, timing, form, float(magnitude), share(right, passage, config.seed),
                    r_squared(change, predicted), _correlation(predicted, change), float(above.mean()),
                    share(right[above], passage[above], config.seed),
                )
            )  # fmt: skip
    return Summary(tuple(rows))


def _correlation(x: Floats, y: Floats) -> float:
    return float(np.corrcoef(x, y)[0, 1]) if x.std() and y.std() else float("nan")
