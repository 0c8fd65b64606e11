"""Quality against the dense dictionary and against values worked out by hand."""

import numpy as np
import pandas as pd
import pytest
import torch

from references import delta_values_reference
from writesae.evals import quality
from writesae.evals.quality import QualityConfig
from writesae.evals.quality.summary import summarise
from writesae.hosts import Host
from writesae.recurrence import replay_reference
from writesae.sae import SAE, SAEConfig, TopK
from writesae.types import Site, Target

SITE = Site(5, 2)


def dictionary(target: Target = "write-delta") -> SAE:
    return SAE(SAEConfig(32, 32, 61, sparsity=TopK(3), target=target), torch.Generator().manual_seed(5))


@pytest.mark.parametrize("target", ["state", "write-delta", "write-value"])
def test_quality_against_dense_matrices(host: Host, passages: torch.Tensor, target: Target) -> None:
    sae = dictionary(target)
    stream = host.record(passages, [5])[5].heads(2)
    value = stream.value if target == "write-value" else delta_values_reference(stream)
    writes = torch.einsum("btk,btv->btkv", stream.key[:, :, 0], value[:, :, 0])
    matrices = replay_reference(stream).states[:, :, 0] if target == "state" else writes
    flat = matrices.flatten(0, 1)
    codes = sae.encode(flat)
    error = (flat - sae.decode(codes)).square().sum().item()
    variance = (flat - flat.mean(0)).square().sum().item()
    result = quality(host, sae, passages, site=SITE)
    s, dense, records = result.summary, codes.dense(61), result.records
    assert records.firings.tolist() == (dense > 0).sum(0).tolist()
    np.testing.assert_allclose(records.largest, dense.max(0).values, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(records.coefficient * records.firings, dense.sum(0), rtol=1e-4, atol=1e-6)
    assert result.more["passages"].variance.sum() == pytest.approx(variance, rel=1e-4)
    assert s.explained_variance == pytest.approx(1 - error / variance, rel=1e-3, abs=1e-4)
    assert s.mse == pytest.approx(error / flat.numel(), rel=1e-4)
    assert s.l0 == pytest.approx((codes.value > 0).sum().item() / len(flat), rel=1e-3)
    assert s.alive + s.dead == 61
    assert s.tokens == passages.numel()


def test_quality_by_hand() -> None:
    features = pd.DataFrame({"feature": range(5), "firings": [0, 1, 3, 20, 76], "coefficient": 1.0})
    passages = pd.DataFrame({"passage": [0, 1], "tokens": [60, 40], "entries": [120, 80], "active": [70, 30],
                             "error": [3.0, 1.0], "variance": [6.0, 10.0]})  # fmt: skip
    s = summarise({"records": features, "passages": passages}, QualityConfig(dense=0.1, edges=(0.001, 0.02, 0.5, 1.0)))
    assert (s.tokens, s.explained_variance, s.mse, s.l0) == (100, 0.75, 0.02, 1.0)
    assert (s.alive, s.dead, s.dense, s.histogram) == (4, 1, 2, (1, 2, 1))
    assert s.gini == pytest.approx((-3 * 1 - 1 * 3 + 1 * 20 + 3 * 76) / (4 * 100))
