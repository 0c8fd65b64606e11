"""Seeds against known copies, and what is no seed of the same thing."""

from typing import Any

import pytest
import torch

from writesae.errors import InputError
from writesae.evals import seeds
from writesae.hosts import Host
from writesae.sae import SAE, Record, SAEConfig, TopK
from writesae.types import Site, Target

SITE = Site(5, 2)


def dictionary(seed: int = 5, target: Target = "write-delta", k: int = 3, features: int = 61) -> SAE:
    config = SAEConfig(32, 32, features, sparsity=TopK(k), target=target)
    return SAE(config, torch.Generator().manual_seed(seed))


def test_a_copy_is_known(host: Host, passages: torch.Tensor) -> None:
    copy, other = dictionary(), dictionary(seed=6)
    order = torch.randperm(61, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in (copy.v_enc, copy.w_enc, copy.b_enc, copy.v_dec, copy.w_dec):
            parameter.copy_(parameter[order])
    same = seeds(host, [dictionary(), copy], passages, site=SITE)
    assert same.summary.matched == 1
    assert same.summary.assigned == pytest.approx(1, abs=1e-5)
    assert {counts.variation for counts in same.summary.counts} == {0.0}
    kinds = [(counts.native_write, counts.name) for counts in same.summary.counts]
    assert kinds == [("", "alive"), *((form, kind) for form in ("delta", "value") for kind in ("register", "bundle"))]
    assert len({sum(c.sizes) for c in same.summary.counts}) > 1
    different = seeds(host, [dictionary(), copy, other], passages, site=SITE)
    assert different.summary.matched == pytest.approx(2 / 6)
    assert different.summary.dictionaries == (0, 1, 2)


def test_what_is_no_other_seed_of_the_same_thing_is_refused(host: Host, passages: torch.Tensor) -> None:
    def refused(other: SAE, message: str, **record: Any) -> None:
        one = dictionary()
        one.record, other.record = (Record(site=SITE, **values) for values in ({"seed": 1}, {"seed": 2} | record))
        with pytest.raises(InputError, match=message):
            seeds(host, [one, other], passages)

    refused(dictionary(), "dictionaries 1 and 2 are the same one")
    refused(dictionary(seed=6), "both trained with seed 1", seed=1)
    refused(dictionary(seed=6, target="state"), "dictionary 2 differs from the first in target")
    refused(dictionary(seed=6, features=67), r"in features \(67 instead of 61\)")
    refused(dictionary(seed=6, k=2), "in sparsity")
    with pytest.raises(InputError, match="two or more dictionaries"):
        seeds(host, [dictionary()], passages, site=SITE)


def test_a_silent_dictionary_is_named_and_the_others_compared(host: Host, passages: torch.Tensor) -> None:
    silent = dictionary(seed=7)
    silent.b_enc.data.fill_(-1e9)
    result = seeds(host, [dictionary(), silent, dictionary(seed=6)], passages, site=SITE)
    assert result.summary.dictionaries == (0, 2)
    (reason,) = (reason for reason, n in result.refused.items() if n == 61)
    assert reason.startswith("dictionary 2: no feature of the dictionary fires")
    assert result.panel.table.rows[0][1:3] == tuple(map(str, result.summary.counts[0].sizes))
    with pytest.raises(InputError, match="1 can be classed"):
        seeds(host, [dictionary(), silent], passages, site=SITE)
