"""Intervals against values worked out by hand."""

import numpy as np
import pytest
import torch
from scipy import stats as scipy_stats
from scipy.special import rel_entr
from scipy.stats import norm
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score
from statsmodels.stats.multitest import multipletests

from writesae.causal.divergence import kl_divergence
from writesae.evals.common import stats
from writesae.evals.common.stats import clustered, wilson


def test_wilson_at_the_published_count() -> None:
    low, high = wilson(4482, 4851)  # 92.4% of 4,851 firings: published [0.916, 0.931]
    assert (round(low, 3), round(high, 3)) == (0.916, 0.931)
    assert all(np.isnan(wilson(0, 0)))


@pytest.mark.parametrize("clusters", [2, 7, 211])
def test_resampled_clusters_are_those_of_scipy_to_the_bit(clusters: int) -> None:
    rng = np.random.default_rng(clusters)
    values, names = rng.normal(size=3 * clusters), np.arange(3 * clusters) % clusters
    for of in (np.ones(3 * clusters), rng.integers(1, 5, 3 * clusters).astype(float)):
        sums, counts = np.bincount(names, values), np.bincount(names, of)
        found = scipy_stats.bootstrap(
            (sums, counts), lambda s, n, axis=-1: s.sum(axis) / n.sum(axis), paired=True, vectorized=True,
            method="percentile", n_resamples=stats.RESAMPLES, rng=np.random.default_rng(5),
        )  # fmt: skip
        assert stats.clustered_ratio(values, of, names, 5) == pytest.approx(tuple(found.confidence_interval), rel=1e-12)


def test_clusters_widen_the_interval() -> None:
    rng = np.random.default_rng(0)
    cluster = np.repeat(np.arange(23), 31)
    alike = (rng.random(23) < 0.5)[cluster]  # every cluster agrees with itself: only 23 independent values
    loose, tight = clustered(alike, cluster, 0), clustered(alike, np.arange(alike.size), 0)
    assert loose.high - loose.low > 3 * (tight.high - tight.low)
    # standard error over 23 clusters, worked out by hand
    share = alike.mean()
    expected = 2 * 1.96 * np.sqrt(share * (1 - share) / 23)
    assert loose.high - loose.low == pytest.approx(expected, rel=0.15)
    assert all(np.isnan(clustered([1.0, 0.0], [7, 7], 0)))


def test_kl_against_scipy_and_at_tiny_values() -> None:
    native, patched = torch.randn(3, 11), torch.randn(3, 11)
    p, q = (torch.softmax(x.double(), -1).numpy() for x in (native, patched))
    np.testing.assert_allclose(kl_divergence(native, patched), rel_entr(p, q).sum(-1), rtol=1e-12)
    np.testing.assert_allclose(kl_divergence(native, patched, "patched||native"), rel_entr(q, p).sum(-1), rtol=1e-12)
    step = torch.zeros(11, dtype=torch.float64)
    step[3] = 1e-6  # KL = p (1 - p) eps^2 / 2 to leading order
    uniform = torch.zeros(11, dtype=torch.float64)
    assert kl_divergence(uniform, uniform + step).item() == pytest.approx(10 / 121 * 1e-12 / 2, rel=1e-6)
    assert kl_divergence(uniform, uniform + step, "patched||native").item() == pytest.approx(
        10 / 121 * 1e-12 / 2, rel=1e-6
    )
    far = torch.tensor([0.0, 2000.0], dtype=torch.float64)
    for direction in ("native||patched", "patched||native"):
        assert kl_divergence(far, far.flip(0), direction).item() == pytest.approx(2000.0)


def test_paired_tests_by_hand() -> None:
    x, y = np.array([5.0, 3.0, 8.0, 6.0, 1.0]), np.array([1.0, 4.0, 2.0, 4.0, 1.0])
    # differences 4, -1, 6, 2, 0: four non-zero ones, ranks 3, 1, 4, 2; the smaller rank sum is that of -1
    assert stats.wilcoxon(x, y).statistic == 1
    assert stats.wilcoxon(x[:4], y[:4]).p == pytest.approx(2 * 2 / 16)  # W <= 1 in 2 of 2^4 sign patterns, two sides
    assert stats.paired_delta(x, y) == pytest.approx((3 - 1) / 5)
    assert all(np.isnan(stats.wilcoxon(x, x)))
    # the published win rate of 91.25% is the published paired delta of 0.825
    assert stats.paired_delta([1] * 1689 + [0] * 162, [0] * 1689 + [1] * 162) == pytest.approx(0.825, abs=1e-3)


def test_independent_samples_by_hand() -> None:
    x, y = [1.0, 4.0, 6.0], [2.0, 3.0, 5.0, 7.0]
    # pairs with x > y: none for 1, two for 4, three for 6
    assert stats.mann_whitney(x, y).statistic == 5
    assert stats.cliffs_delta(x, y) == pytest.approx((5 - 7) / 12)
    brute = np.sign(np.subtract.outer(x, y)).mean()
    assert stats.cliffs_delta(x, y) == pytest.approx(brute)
    assert all(np.isnan(stats.mann_whitney([], y)))


def test_corrections_by_hand() -> None:
    p = [0.01, 0.04, 0.03]
    np.testing.assert_allclose(stats.bonferroni(p), [0.03, 0.12, 0.09])
    np.testing.assert_allclose(stats.holm(p), [0.03, 0.06, 0.06])  # 3 x 0.01, then 2 x 0.03, then max(0.06, 0.04)
    assert stats.holm([]) == []


def test_gini_spearman_and_r_squared_by_hand() -> None:
    assert stats.gini([2, 2, 2]) == 0
    assert stats.gini([0, 0, 0, 5]) == pytest.approx(3 / 4)
    assert stats.gini([1, 3]) == pytest.approx(1 / 4)
    # ranks 1 2 3 4 against 1 2 4 3: 1 - 6 * 2 / (4 * 15)
    assert stats.spearman([1, 2, 3, 4], [10, 20, 40, 30]).statistic == pytest.approx(0.8)
    assert np.isnan(stats.spearman([1, 1, 1], [1, 2, 3]).p)
    y = np.array([1.0, 2.0, 3.0])
    assert stats.r_squared(y, [1, 2, 4]) == pytest.approx(1 - 1 / 2)
    assert stats.r_squared(y, 2 * y) == pytest.approx(1 - 14 / 2)
    assert stats.scaled_r_squared(y, 2 * y) == pytest.approx(1)
    assert np.isnan(stats.r_squared([2, 2], [1, 3]))


def test_mixture_separates_and_prefers_two_only_where_there_are_two() -> None:
    rng = np.random.default_rng(0)
    low, high = rng.normal(0, 0.02, 97), rng.normal(0.3, 0.05, 53)
    found = stats.two_gaussians(np.concatenate([low, high]), 0)
    assert (np.concatenate([low, high]) >= found.cut).tolist() == [False] * 97 + [True] * 53
    assert found.means == pytest.approx((low.mean(), high.mean()), abs=0.01)
    assert found.weights == pytest.approx((97 / 150, 53 / 150), abs=0.01)
    # BIC = -2 log L + p log n with 2 and 5 parameters, by SciPy's normal density
    x = np.concatenate([low, high])
    one = -2 * norm(x.mean(), x.std()).logpdf(x).sum() + 2 * np.log(150)
    density = 97 / 150 * norm(low.mean(), low.std()).pdf(x) + 53 / 150 * norm(high.mean(), high.std()).pdf(x)
    two = -2 * np.log(density).sum() + 5 * np.log(150)
    assert found.delta_bic == pytest.approx(two - one, rel=0.02)
    assert stats.two_gaussians(rng.normal(size=151), 0).delta_bic > 0
    with pytest.raises(ValueError, match="at least 4"):
        stats.two_gaussians([1.0, 2.0], 0)


def test_the_cut_is_where_the_densities_cross_between_the_means() -> None:
    # of 0.7 N(0, 1) and 0.3 N(3, 1) the logs of the densities differ by 3 x - 4.5 + log(0.3 / 0.7)
    assert stats.crossing((0.0, 1.0, 0.7), (3.0, 1.0, 0.3)) == pytest.approx((4.5 - np.log(0.3 / 0.7)) / 3)
    wide = stats.crossing((0.0, 0.1, 0.5), (1.0, 2.0, 0.5))
    assert 0 < wide < 1
    assert norm.pdf(wide, 0, 0.1) == pytest.approx(norm.pdf(wide, 1, 2.0))
    assert norm.pdf(-1.0, 1, 2.0) > norm.pdf(-1.0, 0, 0.1)  # where the likelier one would be called the upper one
    assert stats.crossing((0.0, 1.0, 0.99), (0.5, 1.0, 0.01)) == 0.5  # the upper one is nowhere the likelier
    assert stats.crossing((0.0, 1.0, 0.01), (0.5, 1.0, 0.99)) == 0.0


def test_shares_have_both_intervals_only_where_nothing_is_clustered() -> None:
    apart = stats.share([True, False, True, True], [3, 1, 7, 5], 0)
    assert (apart.value, apart.n, apart.wilson) == (0.75, 4, stats.wilson(3, 4))
    assert apart.interval == stats.clustered([1, 0, 1, 1], range(4), 0)
    together = stats.share([True, False, True, True], [3, 3, 7, 5], 0)
    assert together.wilson is None
    assert np.isnan(stats.share([], [], 0).value)
    for holds in (True, False):  # no resampling doubts them: three passages, not five places
        alike = stats.share([holds] * 5, [3, 3, 7, 7, 5], 0)
        assert (alike.value, alike.n, alike.interval) == (float(holds), 5, stats.wilson(3 * holds, 3))
    assert stats.cluster_means([1.0, 3.0, 5.0], ["b", "b", "a"]).tolist() == [5.0, 2.0]


def test_every_statistic_against_scipy_and_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(2, 61))
    own = scipy_stats.binomtest(17, 61).proportion_ci(method="wilson")
    assert stats.wilson(17, 61) == pytest.approx((own.low, own.high))
    plain = scipy_stats.bootstrap((x,), np.mean, method="percentile", n_resamples=stats.RESAMPLES, rng=rng)
    mine = clustered(x, np.arange(61), 0)  # every value its own cluster
    assert mine == pytest.approx(plain.confidence_interval, abs=0.05)
    assert stats.wilcoxon(x, y) == pytest.approx(tuple(scipy_stats.wilcoxon(x, y)))
    assert stats.mann_whitney(x, y) == pytest.approx(tuple(scipy_stats.mannwhitneyu(x, y)))
    assert stats.spearman(x, y) == pytest.approx(tuple(scipy_stats.spearmanr(x, y)))
    assert stats.r_squared(x, y) == pytest.approx(r2_score(x, y))
    through = LinearRegression(fit_intercept=False).fit(y[:, None], x)
    assert stats.scaled_r_squared(x, y) == pytest.approx(through.score(y[:, None], x))
    size = np.abs(x)  # half the mean absolute difference over the mean
    assert stats.gini(size) == pytest.approx(np.abs(np.subtract.outer(size, size)).mean() / 2 / size.mean())
    p = rng.uniform(0, 0.1, 13)
    order = np.argsort(p)
    steps = np.maximum.accumulate(np.minimum(p[order] * np.arange(13, 0, -1), 1))
    np.testing.assert_allclose(np.array(stats.holm(p))[order], steps)
    np.testing.assert_allclose(stats.bonferroni(p), multipletests(p, method="bonferroni")[1])


def test_clusters_are_what_is_tested() -> None:
    """Two values a cluster: clusters 0 and 1 gain on balance, 2 is even, 3 loses."""
    clusters = [0, 0, 1, 1, 2, 2, 3, 3]
    gains = [1, 0, 1, 0, 1, -1, -1, -1]
    assert stats.sign_test(gains, clusters) == pytest.approx(1.0)
    assert stats.sign_test(gains[:4], clusters[:4]) == pytest.approx(0.5)
    assert stats.sign_test([0] * 8, clusters) == 1
    np.testing.assert_allclose(stats.cluster_means([1, 2, 3, 7], [5, 5, 2, 2]), [5, 1.5])
    # 90 values of one sign in three clusters: three signed ranks, 2 of 2^3 patterns
    assert stats.moved(np.arange(1, 91), np.arange(90) % 3) == pytest.approx(0.25)
    assert stats.moved(np.zeros(6), clusters[:6]) == 1
    hits = [True, False, True, True]
    assert stats.share(hits, [0, 1, 2, 3], 0).bounds == wilson(3, 4)
    assert stats.share(hits, [0, 0, 1, 1], 0).bounds == clustered(hits, [0, 0, 1, 1], 0)


def test_a_null_needs_a_test_of_equivalence() -> None:
    """Nothing different in 300 pairs excludes 5%, in 30 it does not; a real difference is never called none."""
    assert stats.equivalence(np.zeros(300), 0.05) == pytest.approx(0.95**300)
    assert stats.equivalence(np.zeros(30), 0.05) > 0.05
    mixed = np.array([1.0, -1.0] * 10 + [0.0] * 180)
    assert stats.equivalence(mixed, 0.2) < 0.05 < stats.equivalence(mixed, 0.01)
    assert stats.equivalence(np.array([1.0] * 100 + [0.0] * 100), 0.05) > 0.99
