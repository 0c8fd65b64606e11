"""The one place for intervals, effect sizes and corrections; SciPy, statsmodels and scikit-learn do the work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats as scipy_stats
from scipy.optimize import brentq
from sklearn.mixture import GaussianMixture
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint
from statsmodels.stats.weightstats import ttost_paired

RESAMPLES = 2000
TAIL = (1 - 0.95) / 2
"""Share of the resamples on each side of an interval."""


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
    return clustered_ratio(values, np.ones(np.shape(values)), clusters, seed)


def clustered_ratio(values: ArrayLike, of: ArrayLike, clusters: ArrayLike, seed: int) -> Interval:
    """The same of a sum over another, `sum values / sum of`."""
    x, names = np.asarray(values, float), np.unique(np.asarray(clusters), return_inverse=True)[1]
    if x.size == 0 or names.max() == 0:
        return Interval(float("nan"), float("nan"))
    sums, counts = np.bincount(names, x), np.bincount(names, np.asarray(of, float))
    drawn = _drawn(len(sums), seed)
    ratios = np.sort(sums.take(drawn).sum(1) / counts.take(drawn).sum(1))
    tails = np.array([TAIL, 1 - TAIL])
    behind, at = np.modf(tails * RESAMPLES - tails)  # places among the sorted, between two of them
    low, high = (1 - behind) * ratios[at.astype(int)] + behind * ratios[at.astype(int) + 1]
    return Interval(float("nan"), float("nan")) if np.isnan(ratios[-1]) else Interval(float(low), float(high))


@lru_cache(2)
def _drawn(clusters: int, seed: int) -> NDArray[np.int64]:
    """The clusters of each resample, `[RESAMPLES, clusters]`: drawn as by SciPy's bootstrap, and once for all that is
    told of the same clusters."""
    return np.random.default_rng(seed).integers(0, clusters, (RESAMPLES, clusters))


def clustered_statistic(
    table: pd.DataFrame, clusters: str, statistic: Callable[[pd.DataFrame], float], seed: int, resamples: int = 500
) -> tuple[float, Interval]:
    """Any statistic of a table, with the percentile bootstrap that resamples whole values of the column `clusters`.

    (value, (nan, nan)) with fewer than two of them.
    """
    rows = [np.asarray(at) for at in table.reset_index(drop=True).groupby(clusters).indices.values()]
    if len(rows) < 2:
        return statistic(table), Interval(float("nan"), float("nan"))
    random = np.random.default_rng(seed)
    drawn = (np.concatenate([rows[i] for i in random.integers(len(rows), size=len(rows))]) for _ in range(resamples))
    low, high = np.nanpercentile([statistic(table.iloc[at]) for at in drawn], [2.5, 97.5])
    return statistic(table), Interval(float(low), float(high))


def cluster_means(values: ArrayLike, clusters: ArrayLike) -> NDArray[np.float64]:
    """The mean of every cluster, by its name: what tests compare, because values of one passage are not independent."""
    names = np.unique(np.asarray(clusters), return_inverse=True)[1]
    means: NDArray[np.float64] = np.bincount(names, np.asarray(values, float)) / np.bincount(names)
    return means


@dataclass(frozen=True)
class Share:
    """How often something holds, over values that stand in clusters (firings in passages)."""

    value: float
    n: int
    interval: Interval
    """Resampling whole clusters; where all values are alike, which no resampling can doubt, Wilson's interval for as
    many values as there are clusters."""
    wilson: Interval | None
    """Wilson's, which takes all values for independent; only where every one is of a cluster of its own."""

    @property
    def bounds(self) -> Interval:
        """Wilson's where there is one, as it does not shrink to nothing at none and all; else that of clusters."""
        return self.interval if self.wilson is None else self.wilson


def share(holds: ArrayLike, clusters: ArrayLike, seed: int) -> Share:
    """The share of values for which something holds, with its intervals; NaN where there is no value."""
    each, names = np.asarray(holds, bool), np.asarray(clusters)
    if not each.size:
        return Share(float("nan"), 0, Interval(float("nan"), float("nan")), None)
    groups = len(np.unique(names))
    bounds = wilson(int(each.sum()), each.size) if groups == len(names) else None
    alike = each.all() or not each.any()
    interval = wilson(groups * int(each[0]), groups) if alike else clustered(each, names, seed)
    return Share(float(each.mean()), each.size, interval, bounds)


class Test(NamedTuple):
    """A two-sided test."""

    statistic: float
    p: float


NO_TEST = Test(float("nan"), float("nan"))


def wilcoxon(x: ArrayLike, y: ArrayLike) -> Test:
    """Paired signed-rank test of `x - y` against zero; nan where every difference is zero."""
    difference = np.asarray(x, float) - np.asarray(y, float)
    if not difference.any():
        return NO_TEST
    result = scipy_stats.wilcoxon(difference)
    return Test(float(result.statistic), float(result.pvalue))


def mann_whitney(x: ArrayLike, y: ArrayLike) -> Test:
    """Rank test between two independent samples (U of the first); nan where one is empty."""
    a, b = np.asarray(x, float), np.asarray(y, float)
    if not (a.size and b.size):
        return NO_TEST
    result = scipy_stats.mannwhitneyu(a, b, alternative="two-sided")
    return Test(float(result.statistic), float(result.pvalue))


def moved(values: ArrayLike, clusters: ArrayLike) -> float:
    """p of the signed-rank test of the clusters' means against zero; 1 where all are zero."""
    means = cluster_means(values, clusters)
    return wilcoxon(means, np.zeros(len(means))).p if means.any() else 1.0


def sign_test(gains: ArrayLike, clusters: ArrayLike) -> float:
    """p of the exact test that as many clusters gain on balance as lose: with one pair a cluster, McNemar's.

    `gains` is +1, 0 or -1 a pair; 1 where no cluster differs.
    """
    balance = np.sign(cluster_means(gains, clusters))
    gained, lost = int((balance > 0).sum()), int((balance < 0).sum())
    return 1.0 if gained + lost == 0 else float(scipy_stats.binomtest(gained, gained + lost).pvalue)


def equivalence(difference: ArrayLike, margin: float) -> float:
    """p of two one-sided paired t tests that the mean difference lies within `margin` of 0.

    Where no pair differs there is no variance to test with: the chance that none of n pairs differs if a share of
    `margin` does.
    """
    x = np.asarray(difference, float)
    return float(ttost_paired(x, np.zeros(len(x)), -margin, margin)[0] if x.any() else (1 - margin) ** len(x))


def cliffs_delta(x: ArrayLike, y: ArrayLike) -> float:
    """`P(x > y) - P(x < y)` over all pairs of two independent samples; nan where one is empty."""
    a, b = np.asarray(x, float), np.asarray(y, float)
    return 2 * mann_whitney(a, b).statistic / (a.size * b.size) - 1 if a.size and b.size else float("nan")


def paired_delta(x: ArrayLike, y: ArrayLike) -> float:
    """`P(x > y) - P(x < y)` within pairs (the published "paired Cliff's delta"); nan without pairs."""
    sign = np.sign(np.asarray(x, float) - np.asarray(y, float))
    return float(sign.mean()) if sign.size else float("nan")


def spearman(x: ArrayLike, y: ArrayLike) -> Test:
    """Rank correlation and its p value; nan for fewer than three pairs or a constant side."""
    a, b = np.asarray(x, float), np.asarray(y, float)
    if a.size < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return NO_TEST
    result = scipy_stats.spearmanr(a, b)
    return Test(float(result.statistic), float(result.pvalue))


def holm(p: ArrayLike) -> list[float]:
    """p values corrected for their number by Holm's step-down procedure."""
    return _corrected(p, "holm")


def bonferroni(p: ArrayLike) -> list[float]:
    """p values times their number, at most 1."""
    return _corrected(p, "bonferroni")


def _corrected(p: ArrayLike, method: str) -> list[float]:
    """NaN, which says that nothing was tested, stays and is not counted."""
    values = np.array(p, float)
    known = np.isfinite(values)
    values[known] = multipletests(values[known], method=method)[1] if known.any() else ()
    return [float(x) for x in values]


def gini(x: ArrayLike) -> float:
    """Inequality of non-negative values: 0 where all are equal, (n - 1) / n where one has everything."""
    values = np.sort(np.asarray(x, float))
    n, total = values.size, values.sum()
    if n == 0 or total == 0:
        return float("nan")
    return float((2 * np.arange(1, n + 1) - n - 1) @ values / (n * total))


def r_squared(measured: ArrayLike, predicted: ArrayLike) -> float:
    """`1 - sum (y - p)^2 / sum (y - mean y)^2` with nothing fitted; nan where the measured values do not vary."""
    y, p = np.asarray(measured, float), np.asarray(predicted, float)
    total = np.square(y - y.mean()).sum() if y.size else 0.0
    return float(1 - np.square(y - p).sum() / total) if total > 0 else float("nan")


def scaled_r_squared(measured: ArrayLike, predicted: ArrayLike) -> float:
    """The same after the predictions are multiplied by the one number that fits best."""
    y, p = np.asarray(measured, float), np.asarray(predicted, float)
    size = float(p @ p)
    return r_squared(y, p * (float(y @ p) / size)) if size > 0 else float("nan")


class Mixture(NamedTuple):
    """Two Gaussians against one, over single numbers."""

    cut: float
    """Where the two weighted densities cross between the means: values from here on belong to the upper one. Where
    they do not cross there, the mean of the one that is nowhere the likelier."""
    means: tuple[float, float]
    """Lower, upper."""
    weights: tuple[float, float]
    """Lower, upper."""
    delta_bic: float
    """BIC of two components minus BIC of one: negative where two are better."""
    deviations: tuple[float, float]
    """Standard deviations: lower, upper."""


def two_gaussians(x: ArrayLike, seed: int) -> Mixture:
    """Fit both by expectation maximisation (five starts). Raises ValueError for fewer than four values.

    Values are parted by a cut and not by which component is the likelier one: of two Gaussians with unequal variances
    the wider one is the likelier on both sides of the narrow one, so that the smallest values would be called large.
    """
    values = np.asarray(x, float)[:, None]
    if len(values) < 4:
        raise ValueError(f"two Gaussians were to be fitted to {len(values)} values; at least 4 are needed")
    one, two = (GaussianMixture(n, random_state=seed, n_init=5).fit(values) for n in (1, 2))
    low, high = sorted(
        (float(m), float(v) ** 0.5, float(w))
        for m, v, w in zip(two.means_[:, 0], two.covariances_[:, 0, 0], two.weights_, strict=True)
    )
    means, deviations, weights = zip(low, high, strict=True)
    return Mixture(crossing(low, high), means, weights, float(two.bic(values) - one.bic(values)), deviations)


def crossing(low: tuple[float, float, float], high: tuple[float, float, float]) -> float:
    """Where two Gaussians (mean, standard deviation, weight) are equally likely, between their means."""

    def ahead(x: float) -> float:  # rises all the way from the lower mean to the upper one
        upper, lower = (np.log(w) + scipy_stats.norm.logpdf(x, m, d) for m, d, w in (high, low))
        return float(upper - lower)

    if ahead(low[0]) >= 0:
        return low[0]
    return high[0] if ahead(high[0]) <= 0 else float(brentq(ahead, low[0], high[0]))
