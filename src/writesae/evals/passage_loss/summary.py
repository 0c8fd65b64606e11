"""What the records say."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
import pandas as pd

from writesae.evals.common.conditions import CONDITIONS, cells
from writesae.evals.common.floor import above
from writesae.evals.common.stats import Interval, Test, clustered, wilcoxon
from writesae.evals.passage_loss.config import PassageLossConfig
from writesae.types import Amplitude, NativeWrite, Timing

PART = ("timing", "native_write", "amplitude")
COLUMNS = {
    "passage": "number of the passage",
    "timing": "whether the edited token reads the edited state itself (at_token) or not (after_token)",
    "native_write": "which matrix is replaced, and classes the atoms",
    "amplitude": "how large the atom and the random matrix are",
    "firings": "writes that are replaced in it",
    "tokens": "tokens scored",
    "nll_*": "summed negative log-likelihood, nats: native, again (native with other rounding), delete, atom, random",
}
MORE = {
    "firings": {
        "passage": "number of the passage", "position": "token whose write is replaced", "feature": "its top feature",
        "coefficient": "of that feature", "native_write": "the matrix by which it is of the class",
    }
}  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """Over all tokens of the passages that have firings, under one timing, form of the write and amplitude."""

    timing: Timing
    native_write: NativeWrite
    amplitude: Amplitude
    passages: int
    firings: int
    above: float
    """Share of passages whose loss deletion changes by more than rounding does."""
    bits: dict[str, float]
    """Condition -> bits a token added to the native loss, mean over passages."""
    intervals: dict[str, Interval]
    """Bootstrap over passages."""
    tests: dict[str, Test]
    """Signed ranks over passages against the native loss."""
    recovered: float
    """Loss recovered by the atoms: 1 - (atom - native) / (delete - native) of the summed losses; nan where
    the interval of what deletion adds holds zero."""


@dataclass(frozen=True)
class Summary:
    """By timing, form of the write and amplitude."""

    cells: tuple[Cell, ...]


def summarise(tables: Mapping[str, pd.DataFrame], config: PassageLossConfig) -> Summary:
    """The summary of the records."""
    return Summary(tuple(_cell(key, own, config.seed) for key, own in cells(tables["records"], PART)))


def added(records: pd.DataFrame) -> pd.DataFrame:
    """Bits a token that each condition adds, by passage."""
    bits = {c: (records[f"nll_{c}"] - records.nll_native) / records.tokens / math.log(2) for c in CONDITIONS}
    return pd.DataFrame(bits)


def _cell(key: tuple[str, ...], records: pd.DataFrame, seed: int) -> Cell:
    bits, clusters, native = added(records), records.passage.to_numpy(), records.nll_native
    total = {name: float((records[f"nll_{name}"] - native).sum()) for name in CONDITIONS}
    intervals = {name: clustered(bits[name].to_numpy(), clusters, seed) for name in CONDITIONS}
    effect, floor = (np.square(records[f"nll_{name}"] - native) for name in ("delete", "again"))
    return Cell(
        cast(Timing, key[0]),
        cast(NativeWrite, key[1]),
        cast(Amplitude, key[2]),
        passages=len(records),
        firings=int(records.firings.sum()),
        above=float(above(effect, floor).mean()),
        bits={name: float(bits[name].mean()) for name in CONDITIONS},
        intervals=intervals,
        tests={name: wilcoxon(records[f"nll_{name}"], native) for name in CONDITIONS},
        recovered=1 - total["atom"] / total["delete"] if intervals["delete"].low > 0 else float("nan"),
    )
