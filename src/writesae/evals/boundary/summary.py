"""What the records say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from writesae.evals.boundary.config import BoundaryConfig

COLUMNS = {
    "feature": "feature",
    "firings": "tokens at which it fires",
    "firings_inside": "of these, tokens of the class",
    "auroc": "separation, NaN where it never fires",
    "p_raw": "Mann-Whitney's p",
    "p": "the same, Holm-corrected over the features that fire",
    "inside": "tokens of the class, the same in every row",
    "outside": "all other tokens",
}


@dataclass(frozen=True)
class Feature:
    """One feature."""

    feature: int
    auroc: float
    p: float
    """Corrected."""
    inside: float
    """Share of the class's tokens at which it fires."""
    outside: float
    """Share of the other tokens."""


@dataclass(frozen=True)
class Summary:
    """Over the features that fire."""

    inside: int
    """Tokens of the class."""
    outside: int
    fired: int
    """Features that fire."""
    separating: int
    """Features that fire more within the class, significantly."""
    best: tuple[Feature, ...]
    """The most separating ones first."""


def summarise(tables: Mapping[str, pd.DataFrame], config: BoundaryConfig) -> Summary:
    """The summary of the records."""
    records = tables["records"]
    fired = records[records.p.notna()]
    inside, outside = int(records.inside.iloc[0]), int(records.outside.iloc[0])
    best = fired.sort_values(["auroc", "feature"], ascending=[False, True]).head(config.top)
    return Summary(
        inside, outside, len(fired), int(((fired.auroc > 0.5) & (fired.p < config.alpha)).sum()),
        tuple(
            Feature(int(f), float(a), float(p), float(n) / inside, float(m - n) / outside)
            for f, a, p, n, m in zip(best.feature, best.auroc, best.p, best.firings_inside, best.firings, strict=True)
        ),
    )  # fmt: skip
