"""The one place for intervals and effect sizes; SciPy and statsmodels do the work."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats as scipy_stats
from statsmodels.stats.proportion import proportion_confint

RESAMPLES = 2000


class Interval(NamedTuple):
    """A 95% interval."""

    low: float
    high: float


def wilson(wins: int, n: int) -> Interval:
    """Wilson score interval of a proportion; (nan, nan) where nothing was counted."""
    if n == 0:
        return Interval(float("nan"), float("nan"))
    low, high = proportion_confint(wins, n, alpha=0.05, method="wilson")
    return Interval(float(low), float(high))


def clustered(values: ArrayLike, clusters: ArrayLike, seed: int) -> Interval:
    """Percentile bootstrap of a mean that resamples whole clusters (passages, features), not single values.

    (nan, nan) with fewer than two clusters, where nothing can be resampled.
    """
    x, names = np.asarray(values, float), np.unique(np.asarray(clusters), return_inverse=True)[1]
    if x.size == 0 or names.max() == 0:
        return Interval(float("nan"), float("nan"))
    sums, counts = np.bincount(names, x), np.bincount(names)

    def mean(s: NDArray[np.float64], n: NDArray[np.float64], axis: int = -1) -> NDArray[np.float64]:
        ratio: NDArray[np.float64] = s.sum(axis) / n.sum(axis)
        return ratio

    result = scipy_stats.bootstrap(
        (sums, counts), mean, paired=True, vectorized=True, method="percentile",
        n_resamples=RESAMPLES, rng=np.random.default_rng(seed),
    )  # fmt: skip
    return Interval(float(result.confidence_interval.low), float(result.confidence_interval.high))
