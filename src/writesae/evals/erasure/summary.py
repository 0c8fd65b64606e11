"""How the followed token's log probability changes with the dose, at firings and elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast

import pandas as pd

from writesae.evals.common.floor import stands_out
from writesae.evals.common.stats import Interval, clustered, holm, moved
from writesae.evals.erasure.config import ErasureConfig
from writesae.types import NativeWrite, Timing

Condition = Literal["delete", "elsewhere"]

COLUMNS = {
    "feature": "feature",
    "condition": "delete: its write is taken out where it fires; elsewhere: added where it does not",
    "pair": "a firing and the place elsewhere that gets its write have the same number, by feature",
    "passage": "passage",
    "position": "the edited token, counted from 0",
    "token": "the followed token's id",
    "text": "its text",
    "timing": "after_token or at_token",
    "native_write": "what is taken out: delta or value",
    "dose": "how many times",
    "norm": "Frobenius norm of what is taken out or added",
    "change": "change of the followed token's log probability, nats",
    "floor": "largest change of any log probability between two native rows of the same batch: rounding, nats",
}


@dataclass(frozen=True)
class Row:
    """One feature, timing, native write and condition at one dose."""

    feature: int
    token: int
    """Whose log probability is followed."""
    text: str
    timing: Timing
    native_write: NativeWrite
    condition: Condition
    dose: float
    n: int
    passages: int
    median: float
    """Change of the token's log probability, nats."""
    mean: float
    interval: Interval
    """Of the mean, bootstrap over passages."""
    p: float
    """Wilcoxon signed-rank test of the passages' means against no change, Holm-corrected over the rows; 1 where nothing
    changed."""
    above: float
    """Share of the changes that are above rounding."""


@dataclass(frozen=True)
class Summary:
    """The table."""

    rows: tuple[Row, ...]


def summarise(tables: Mapping[str, pd.DataFrame], config: ErasureConfig) -> Summary:
    """The summary of the records."""
    by = ["feature", "token", "text", "timing", "native_write", "condition", "dose"]
    groups = [
        (cast(tuple[int, int, str, Timing, NativeWrite, Condition, float], name), part.sort_values("pair"))
        for name, part in tables["records"].groupby(by)
    ]
    corrected = holm([moved(part["change"], part["passage"]) for _, part in groups])
    return Summary(
        tuple(
            Row(
                int(name[0]), int(name[1]), *name[2:6], float(name[6]), len(part), part["passage"].nunique(),
                float(part["change"].median()), float(part["change"].mean()),
                clustered(part["change"], part["passage"], config.seed), p,
                float(stands_out(part["change"], part["floor"]).mean()),
            )
            for (name, part), p in zip(groups, corrected, strict=True)
        )
    )  # fmt: skip
