"""Classes and sweeps against values worked out by hand and against the dense dictionary."""

import numpy as np
import pandas as pd
import pytest
import torch

from references import delta_values_reference
from writesae.errors import InputError
from writesae.evals import partition
from writesae.evals.common.classes import labels
from writesae.evals.common.firings import all_firings, firings_by_form
from writesae.evals.partition import PartitionConfig
from writesae.evals.partition.summary import summarise
from writesae.hosts import Host
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
    table["native_write"] = "value"
    few = table.assign(k=2, firings=[1, 1, 1] + [0] * 17)
    s = summarise({"records": pd.concat([table, few])}, PartitionConfig(ks=(2,), thresholds=(0.0, 0.5)))
    (one,) = s.partitions
    assert (s.features, s.null, one.native_write) == (20, 2, "value")
    assert (one.classes.alive, one.classes.register, one.classes.bundle) == (18, 7, 11)
    assert (one.classes.register_median, one.classes.bundle_median) == pytest.approx((0.5, 0.0))
    assert 0.02 < one.classes.cut < 0.48
    assert one.classes.delta_bic < 0
    assert one.above == {"0.0": 6 + 7, "0.5": 4}
    assert one.by_k == {"2": None}
    assert labels(table, 1, 0) == {f: "bundle" if f < 11 else "register" for f in range(18)}


def test_the_most_negative_cosines_are_no_registers() -> None:
    """A narrow lump at zero and a wide one above it, whose lower tail reaches below the narrow one."""
    rng = np.random.default_rng(0)
    cosine = np.concatenate([rng.normal(0, 0.01, 211), rng.normal(0.2, 0.12, 97), [-0.15, -0.2, -0.25]])
    table = pd.DataFrame({"feature": range(len(cosine)), "firings": 1, "k": 0, "coefficient": 1.0, "cosine": cosine})
    kind = labels(table, 1, 0)
    assert [kind[f] for f in (308, 309, 310)] == ["bundle"] * 3
    assert cosine[[kind[f] == "register" for f in kind]].min() > cosine[[kind[f] == "bundle" for f in kind]].max()


def test_partition_of_a_host(host: Host, passages: torch.Tensor) -> None:
    result = partition(host, dictionary(), passages, site=SITE, minimum=2, ks=(1, 3))
    assert result.attempted == 61 == result.n + sum(result.refused.values())
    assert [one.native_write for one in result.summary.partitions] == ["delta", "value"]
    for one in result.summary.partitions:
        assert one.by_k["3"] == one.classes
    delta = partition(host, dictionary(), passages, site=SITE, minimum=2, ks=(1, 3), native_write="delta")
    assert delta.summary.partitions == result.summary.partitions[:1]
    fired = firings_by_form(host, dictionary(), SITE, passages, ("delta", "value"))
    for form in ("delta", "value"):
        alone = all_firings(host, dictionary(), SITE, passages, form).cosine
        pd.testing.assert_series_equal(fired[f"cosine_{form}"], alone, check_names=False)
    silent = dictionary()
    silent.b_enc.data.fill_(-1e9)
    with pytest.raises(InputError, match="no feature of the dictionary fires"):
        partition(host, silent, passages, site=SITE)
    with pytest.raises(InputError, match="told apart from 4 on"):
        partition(host, dictionary(), passages, site=SITE, minimum=10**6)
