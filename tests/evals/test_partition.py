"""Classes and sweeps against values worked out by hand and against the dense dictionary."""

import numpy as np
import pandas as pd
import pytest
import torch

from writesae.errors import InputError
from writesae.evals import partition as parts
from writesae.evals.common.firings import all_firings
from writesae.evals.old.partition import PartitionConfig, labels, partition
from writesae.hosts import Host
from writesae.recurrence import delta_values_reference
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
