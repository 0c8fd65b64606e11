"""Classes, sweeps and quality against values worked out by hand and against the dense dictionary."""

import numpy as np
import pandas as pd
import pytest
import torch

from writesae.errors import InputError
from writesae.evals import partition as parts
from writesae.evals import quality as measure
from writesae.evals.common.firings import all_firings
from writesae.evals.old.partition import PartitionConfig, labels, partition
from writesae.evals.old.quality import QualityConfig, quality
from writesae.hosts import Host
from writesae.recurrence import delta_values_reference, replay_reference
from writesae.sae import SAE, SAEConfig, TopK
from writesae.types import Site, Target

SITE = Site(5, 2)


def dictionary(target: Target = "write-delta") -> SAE:
    return SAE(SAEConfig(32, 32, 61, sparsity=TopK(3), target=target), torch.Generator().manual_seed(5))


def test_firings_against_the_dense_dictionary(host: Host, passages: torch.Tensor) -> None:
    sae = dictionary()
    stream = host.record(passages, [5])[5].heads(2)
    update = delta_values_reference(stream)
    writes = torch.einsum("btk,btv->btkv", stream.key[:, :, 0], update[:, :, 0])
    codes = sae.encode(writes).dense(61)
    fired = all_firings(host, sae, SITE, passages)
    assert len(fired) == int((codes > 0).sum())
    atoms = sae.atom_matrices().detach().flatten(1)
    for record in fired.sample(17, random_state=0).to_dict("records"):
        here = (record["passage"], record["position"])
        assert record["coefficient"] == pytest.approx(codes[here][record["feature"]].item(), rel=1e-4)
        assert record["order"] == (codes[here] > codes[here][record["feature"]]).sum()
        cosine = torch.nn.functional.cosine_similarity(writes[here].flatten(), atoms[record["feature"]], dim=0)
        assert record["cosine"] == pytest.approx(cosine.item(), abs=1e-5)


def test_partition_by_hand() -> None:
    low, high = np.linspace(-0.02, 0.02, 11), np.linspace(0.48, 0.52, 7)
    table = pd.DataFrame({"feature": range(20), "firings": [3] * 11 + [2] * 7 + [0, 0], "k": 0, "coefficient": 1.0})
    table["cosine"] = np.concatenate([low, high, [np.nan, np.nan]])
    few = table.assign(k=2, firings=[1, 1, 1] + [0] * 17)
    config = PartitionConfig(ks=(2,), thresholds=(0.0, 0.5))
    s = parts.summarise(pd.concat([table, few]), config)
    assert (s.features, s.null, s.classes.alive, s.classes.register, s.classes.bundle) == (20, 2, 18, 7, 11)
    assert (s.classes.register_median, s.classes.bundle_median) == pytest.approx((0.5, 0.0))
    assert s.classes.delta_bic < 0
    assert s.above == {"0.0": 6 + 7, "0.5": 4}
    assert s.by_k == {"2": None}
    assert labels(table, config) == {f: "bundle" if f < 11 else "register" for f in range(18)}


def test_partition_of_a_host(host: Host, passages: torch.Tensor) -> None:
    config = PartitionConfig(minimum=2, ks=(1, 3))
    result = partition(host, dictionary(), SITE, passages, config)
    assert result.attempted == 61 == result.n + sum(result.refused.values())
    assert result.summary.by_k["3"] == result.summary.classes
    again = parts.summarise(result.records, config)
    assert again == result.summary
    silent = dictionary()
    silent.b_enc.data.fill_(-1e9)
    with pytest.raises(InputError, match="no feature of the dictionary fires"):
        partition(host, silent, SITE, passages)
    with pytest.raises(InputError, match="a partition needs 4"):
        partition(host, dictionary(), SITE, passages, PartitionConfig(minimum=10**6))


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
    s = quality(host, sae, SITE, passages).summary
    assert s.explained_variance == pytest.approx(1 - error / variance, rel=1e-3, abs=1e-4)
    assert s.mse == pytest.approx(error / flat.numel(), rel=1e-4)
    assert s.l0 == pytest.approx((codes.value > 0).sum().item() / len(flat), rel=1e-3)
    assert s.alive + s.dead == 61
    assert s.tokens == passages.numel()


def test_quality_by_hand() -> None:
    features = pd.DataFrame({"feature": range(5), "firings": [0, 1, 3, 20, 76], "coefficient": 1.0})
    passages = pd.DataFrame({"passage": [0, 1], "tokens": [60, 40], "entries": [120, 80], "active": [70, 30],
                             "error": [3.0, 1.0], "variance": [6.0, 10.0]})  # fmt: skip
    s = measure.summarise(features, passages, QualityConfig(dense=0.1, edges=(0.001, 0.02, 0.5, 1.0)))
    assert (s.tokens, s.explained_variance, s.mse, s.l0) == (100, 0.75, 0.02, 1.0)
    assert (s.alive, s.dead, s.dense, s.histogram) == (4, 1, 2, (1, 2, 1))
    assert s.gini == pytest.approx((-3 * 1 - 1 * 3 + 1 * 20 + 3 * 76) / (4 * 100))
