"""What the records say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from writesae.evals.common.classes import CLASSES
from writesae.evals.seeds.config import SeedsConfig

COLUMNS = {
    "feature": "alive feature of a dictionary",
    "dictionary": "its dictionary, counted from 0",
    "other": "another dictionary",
    "class_*": "register or bundle, by its cosine to this form of the native write",
    "best": "largest absolute cosine to an alive atom of the other dictionary",
    "assigned": "absolute cosine to its partner under the best one-to-one assignment, NaN without one",
}


@dataclass(frozen=True)
class Counts:
    """Atoms of one class in each dictionary."""

    native_write: str
    """The form that classes them; empty for all alive atoms."""
    name: str
    """The class, or "alive"."""
    sizes: tuple[int, ...]
    """By dictionary."""
    variation: float
    """Standard deviation over mean."""


@dataclass(frozen=True)
class Summary:
    """Over all dictionaries that could be classed."""

    dictionaries: tuple[int, ...]
    """Their numbers, counted from 0."""
    counts: tuple[Counts, ...]
    matched: float
    """Share of alive atoms whose best counterpart in another dictionary is the same, mean over ordered pairs."""
    best: float
    """Median over atoms of the best absolute cosine to another dictionary's atoms."""
    assigned: float
    """Mean absolute cosine under the best one-to-one assignment, over pairs."""


def summarise(tables: Mapping[str, pd.DataFrame], config: SeedsConfig) -> Summary:
    """The summary of the records."""
    records = tables["records"]
    names = sorted(int(n) for n in records.dictionary.unique())
    first = [records[(records.dictionary == a) & (records.other == names[int(a == names[0])])] for a in names]
    counts = [_counts("", "alive", [len(own) for own in first])]
    for column in (str(c) for c in records.columns if str(c).startswith("class_")):
        for kind in CLASSES:
            sizes = [int((own[column] == kind).sum()) for own in first]
            counts.append(_counts(column.removeprefix("class_"), kind, sizes))
    same = records.assign(same=records.best > config.match).groupby(["dictionary", "other"]).same.mean()
    return Summary(
        tuple(names), tuple(counts), float(same.mean()), float(records.best.median()), float(records.assigned.mean())
    )


def _counts(form: str, name: str, sizes: list[int]) -> Counts:
    variation = float(np.std(sizes, ddof=1) / np.mean(sizes)) if any(sizes) else float("nan")
    return Counts(form, name, tuple(sizes), variation)
