"""How many tokens of the class are said, against the unedited continuations of the same prompts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import pandas as pd

from writesae.evals.amplification.config import AmplificationConfig
from writesae.evals.common.stats import Interval, clustered, holm, moved
from writesae.types import Timing

Condition = Literal["class", "other_atom"]

COLUMNS = {
    "passage": "passage whose beginning is the prompt",
    "condition": "native: unedited; class: the class\u2019s features; other_atom: as many other ones that fire",
    "timing": "after_token or at_token; empty for the unedited one",
    "dose": "factor of the coefficients; 1 for the unedited one",
    "count": "tokens of the class among the new ones",
    "text": "the new tokens\u2019 text",
}

MORE = {
    "features": {
        "site": "head",
        "feature": "feature that is amplified there",
        "condition": "class or other_atom",
        "inside": "share of the class\u2019s tokens at which it fires",
        "outside": "share of the other tokens",
    }
}


@dataclass(frozen=True)
class Row:
    """One set of features, timing and dose, against the unedited continuations of the same prompts."""

    condition: Condition
    timing: Timing
    dose: float
    n: int
    mean: float
    """Tokens of the class in a continuation."""
    change: float
    """Mean difference to the unedited continuations."""
    interval: Interval
    """Of it, bootstrap over prompts."""
    changed: float
    """Share of the continuations that say anything else than the unedited one."""
    cohens_d: float
    """Paired: mean difference over its standard deviation; 0 where nothing changed."""
    p: float
    """Paired Wilcoxon, Holm-corrected over the table; 1 where nothing changed."""
    p_random: float
    """The same against the other features at the same dose; NaN for those themselves."""


@dataclass(frozen=True)
class Summary:
    """The features by head, and the table."""

    features: dict[str, tuple[int, ...]]
    other_features: dict[str, tuple[int, ...]]
    native: float
    """Mean number of class tokens in the unedited continuations."""
    rows: tuple[Row, ...]


_Name = tuple[Condition, Timing, float]


def summarise(tables: Mapping[str, pd.DataFrame], config: AmplificationConfig) -> Summary:
    """The summary of the records."""
    records, features = tables["records"].sort_values("passage", kind="stable"), tables["features"]
    unedited = records[records.condition == "native"]
    native, passage = unedited["count"].to_numpy(float), unedited["passage"].to_numpy()
    edited = records[records.condition != "native"]
    groups = {cast(_Name, name): part for name, part in edited.groupby(["condition", "timing", "dose"], sort=False)}
    counts = {name: part["count"].to_numpy(float) for name, part in groups.items()}
    pairs = {(name, "native"): x - native for name, x in counts.items()}
    pairs |= {(n, "other"): x - counts["other_atom", n[1], n[2]] for n, x in counts.items() if n[0] == "class"}
    corrected = dict(zip(pairs, holm([moved(x, passage) for x in pairs.values()]), strict=True))
    rows = []
    for name, x in counts.items():
        change = x - native
        spread = float(change.std(ddof=1)) if len(change) > 1 else 0.0
        rows.append(
            Row(
                name[0], name[1], float(name[2]), len(x), float(x.mean()), float(change.mean()),
                clustered(change, passage, config.seed),
                float((groups[name]["text"].to_numpy() != unedited["text"].to_numpy()).mean()),
                float(change.mean()) / spread if spread else 0.0, corrected[name, "native"],
                corrected.get((name, "other"), float("nan")),
            )
        )  # fmt: skip
    return Summary(_by_site(features, "class"), _by_site(features, "other_atom"), float(np.mean(native)), tuple(rows))


def _by_site(features: pd.DataFrame, condition: str) -> dict[str, tuple[int, ...]]:
    chosen = features[features.condition == condition]
    return {str(site): tuple(int(f) for f in part.feature) for site, part in chosen.groupby("site", sort=False)}
