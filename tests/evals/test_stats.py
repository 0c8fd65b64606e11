"""Intervals against values worked out by hand."""

import numpy as np
import pytest
import torch
from scipy.special import rel_entr

from writesae.evals.divergence import kl_divergence
from writesae.evals.stats import clustered, wilson


def test_wilson_at_the_published_count() -> None:
    low, high = wilson(4482, 4851)  # 92.4% of 4,851 firings: published [0.916, 0.931]
    assert (round(low, 3), round(high, 3)) == (0.916, 0.931)
    assert all(np.isnan(wilson(0, 0)))


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
    assert kl_divergence(uniform, uniform + step).item() == pytest.approx(10 / 121 * 1e-12 / 2, rel=1e-3)
