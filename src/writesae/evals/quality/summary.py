"""What the records say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from writesae.evals.common.stats import gini
from writesae.evals.quality.config import QualityConfig

COLUMNS = {
    "feature": "feature",
    "firings": "tokens at which it fires",
    "frequency": "the same as a share of all tokens",
    "coefficient": "mean coefficient where it fires",
    "largest": "largest coefficient",
}
MORE = {
    "passages": {
        "passage": "number of the passage",
        "tokens": "tokens in it",
        "entries": "numbers in its matrices: tokens times d_k times d_v",
        "active": "firings",
        "error": "squared error of the reconstruction, summed over entries",
        "norm": "squared entries, summed",
        "variance": "squared distance from the mean matrix of all passages, summed",
    }
}


@dataclass(frozen=True)
class Summary:
    """Quality on one text."""

    tokens: int
    explained_variance: float
    """`1 - sum |X - X^|^2 / sum |X - mean X|^2`."""
    mse: float
    """Mean squared error an entry."""
    l0: float
    """Mean active features a token."""
    alive: int
    dead: int
    """Features that never fire."""
    dense: int
    """Features that fire at too many tokens."""
    gini: float
    """Inequality of the alive features' firing counts."""
    histogram: tuple[int, ...]
    """Alive features by frequency, one count a bin of the configuration's edges."""


def summarise(tables: Mapping[str, pd.DataFrame], config: QualityConfig) -> Summary:
    """The summary of the two tables."""
    firings, passages = tables["records"].firings.to_numpy(), tables["passages"]
    tokens, variance = int(passages.tokens.sum()), float(passages.variance.sum())
    frequency, alive = firings / tokens, firings > 0
    return Summary(
        tokens=tokens,
        explained_variance=1 - float(passages.error.sum()) / variance if variance > 0 else float("nan"),
        mse=float(passages.error.sum() / passages.entries.sum()),
        l0=float(passages.active.sum() / tokens),
        alive=int(alive.sum()),
        dead=int((~alive).sum()),
        dense=int((frequency > config.dense).sum()),
        gini=gini(firings[alive]),
        histogram=tuple(int(n) for n in np.histogram(frequency[alive], config.edges)[0]),
    )
