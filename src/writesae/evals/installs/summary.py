"""How often targets are said, against the unedited continuations and against random directions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from writesae.evals.common.floor import stands_out
from writesae.evals.common.stats import Interval, Share, clustered, holm, moved, share, sign_test
from writesae.evals.installs.config import InstallsConfig
from writesae.types import DirectionKind, NativeWrite, Timing

SATURATED = 0.5

TRIALS = {
    "passage": "prompt",
    "target": "the token that is to be said",
    "rank": "its native rank as the next token, counted from 0",
    "direction": "what is written: closed, exact or random",
    "timing": "after_token or at_token",
    "native_write": "the native write that the magnitude counts in: delta or value",
    "last": "last tokens that are written at",
    "magnitude": "Frobenius norm of each write, in native writes",
    "included": "whether the edited continuation holds the target",
    "native": "whether the unedited one does",
    "lift": "change of the target's log probability as the first new token, nats",
    "floor": "largest difference of any log probability between two native runs: rounding, nats",
    "share": "share of the new tokens that are the target",
}
"""What a trial of installing says, here and in `proper_nouns`."""

COLUMNS = TRIALS | {
    "which": "which of the prompt's targets of this class",
    "rank_low": "native ranks from which the target was drawn",
    "rank_high": "the same, excluded",
}


@dataclass(frozen=True)
class Row:
    """One direction, timing, native write, magnitude, number of last tokens and rank class."""

    direction: DirectionKind
    timing: Timing
    native_write: NativeWrite
    magnitude: float
    last: int
    ranks: tuple[int, int]
    said: Share
    """Continuations that contain the target."""
    native: float
    """Share of the unedited ones that do."""
    random: float
    """Share with random directions of the same norm; NaN where they were not run."""
    lift: float
    """Mean change of the target's log probability at the first new token, nats."""
    lift_interval: Interval
    """Bootstrap over prompts."""
    lift_median: float
    above: float
    """Share of the lifts that are above rounding."""
    saturated: float
    """Share of continuations in which the target is half of the tokens or more."""
    p_native: float
    """Sign test over prompts against the unedited continuations (McNemar's exact test where a prompt has one target),
    Holm-corrected over all of the table's tests of inclusion."""
    p_random: float
    """The same against random directions; NaN where they were not run."""
    p_lift: float
    """Wilcoxon signed-rank test of the prompts' mean lifts against none, Holm-corrected over the rows."""


@dataclass(frozen=True)
class Summary:
    """The table."""

    rows: tuple[Row, ...]


_Name = tuple[DirectionKind, Timing, NativeWrite, float, int, int, int]


def summarise(tables: Mapping[str, pd.DataFrame], config: InstallsConfig) -> Summary:
    """The summary of the records."""
    by = ["direction", "timing", "native_write", "magnitude", "last", "rank_low", "rank_high"]
    groups = {
        cast(_Name, name): part.sort_values(["passage", "which"])
        for name, part in tables["records"].groupby(by, sort=False)
    }
    tests: dict[tuple[_Name, str], float] = {}
    for name, part in groups.items():
        tests[name, "native"] = gain_test(part, part["native"].to_numpy(bool))
        random = groups.get(("random", *name[1:]))
        if random is not None and name[0] != "random":
            tests[name, "random"] = gain_test(part, random["included"].to_numpy(bool))
    corrected = dict(zip(tests, holm(list(tests.values())), strict=True))
    p_lift = holm([moved(part["lift"], part["passage"]) for part in groups.values()])
    rows = []
    for (name, part), p in zip(groups.items(), p_lift, strict=True):
        random = groups.get(("random", *name[1:]))
        rows.append(
            Row(
                name[0], name[1], name[2], float(name[3]), int(name[4]), (int(name[5]), int(name[6])),
                share(part["included"], part["passage"], config.seed),
                float(part["native"].mean()), float("nan") if random is None else float(random["included"].mean()),
                float(part["lift"].mean()), clustered(part["lift"], part["passage"], config.seed),
                float(part["lift"].median()), float(stands_out(part["lift"], part["floor"]).mean()),
                float((part["share"] >= SATURATED).mean()), corrected[name, "native"],
                corrected.get((name, "random"), float("nan")), p,
            )
        )  # fmt: skip
    return Summary(tuple(rows))


def gain_test(part: pd.DataFrame, other: NDArray[np.bool_]) -> float:
    """Prompts whose continuations contain their targets more often than the other ones, against those less often."""
    return sign_test(part["included"].to_numpy(int) - other.astype(int), part["passage"])
