"""The write's share of the state, against states rebuilt token by token."""

import pytest
import torch
from torch import Tensor

from random_hosts import tiny_host
from writesae.evals.common.share import shares
from writesae.hosts import Host
from writesae.recurrence import delta_values, replay_reference
from writesae.types import Site


def test_share_is_the_median_over_tokens(host: Host, passages: Tensor) -> None:
    few, sites = passages[:2], (Site(5, 2), Site(2, 0), Site(5, 1))
    found = shares(host, sites, few)
    assert list(found) == ["L5.H2", "L2.H0", "L5.H1"]
    for site in sites:
        stream = host.record(few, [site.layer])[site.layer].heads(site.head)
        states = replay_reference(stream).states[:, :, 0].flatten(2).norm(dim=-1)
        for form, value in (("delta", delta_values(stream)[0]), ("value", stream.value)):
            writes = stream.key[:, :, 0].norm(dim=-1) * value[:, :, 0].norm(dim=-1)
            assert found[str(site)][form] == pytest.approx(float((writes / states).median()), rel=1e-3)


def test_heads_have_the_forms_of_the_write_that_differ() -> None:
    other = tiny_host("qwen3_next")
    text = torch.randint(3, other.vocabulary, (2, 19), generator=torch.Generator().manual_seed(0))
    assert set(shares(other, [Site(0, 1)], text)["L0.H1"]) == {"delta", "value"}
    mamba = tiny_host("mamba2")
    text = text % mamba.vocabulary
    assert set(shares(mamba, [Site(0, 1)], text)["L0.H1"]) == {"value"}
