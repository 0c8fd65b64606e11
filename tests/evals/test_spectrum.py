"""The audit against the dense states."""

import numpy as np
import pandas as pd
import pytest
import torch

from writesae.errors import InputError
from writesae.evals.old.configs import SpectrumConfig
from writesae.evals.old.spectrum import HeadSpectrum, Spectrum, audit, heads_of, spectrum, summarise
from writesae.hosts import Host
from writesae.recurrence import delta_values_reference, replay_reference
from writesae.types import Site


def test_against_dense_states(host: Host, passages: torch.Tensor) -> None:
    result = spectrum(host, passages[:2], writes=5, seed=4)
    assert [h.site for h in result.heads] == host.sites
    stream = host.record(passages[:2], [6])[6]
    states, update = replay_reference(stream).states, delta_values_reference(stream)
    generator = torch.Generator().manual_seed(4)
    for _ in [i for i in host.layers if i <= 6]:  # layers draw their places one after the other
        passage = torch.randint(2, (5,), generator=generator)
        position = torch.randint(1, passages.shape[1] - 2, (5,), generator=generator)
    state = states[passage, position]
    write = torch.einsum("rhk,rhv->rhkv", stream.key[passage, position], update[passage, position])
    share = (write.flatten(2).norm(dim=2) / state.flatten(2).norm(dim=2)).median(0).values
    largest = torch.linalg.matrix_norm(state, ord=2)
    rank = (torch.linalg.matrix_norm(state).square() / largest.square()).median(0).values
    for h in result.heads[-6:]:
        assert h.write_share == pytest.approx(share[h.head].item(), rel=1e-4)
        assert h.stable_rank == pytest.approx(rank[h.head].item(), rel=1e-4)
        assert h.decay == pytest.approx(stream.log_decay[:, :, h.head].exp().mean().item(), rel=1e-5)
        assert h.delete_kl >= 0
    places = list(zip(passage.tolist(), position.tolist(), strict=True))
    writes = result.writes[result.writes["layer"] == 6].to_dict("records")
    assert [(w["head"], w["passage"], w["position"]) for w in writes] == [(h, *p) for h in range(6) for p in places]
    for w in writes:
        whole = state[places.index((w["passage"], w["position"])), w["head"]]
        assert w["singular_values"] == pytest.approx(np.linalg.svd(whole.numpy(), compute_uv=False), rel=1e-3, abs=1e-6)
        assert w["state_norm"] == pytest.approx(whole.norm().item(), rel=1e-5)


def test_heads_and_summary_follow_from_the_writes(host: Host, passages: torch.Tensor) -> None:
    result = audit(host, passages[:2], SpectrumConfig(writes=4))
    writes, records = result.more["writes"], result.records
    sites = [Site(layer, head) for layer, head in zip(records["layer"], records["head"], strict=True)]
    frame = Spectrum(heads_of(writes, dict(zip(sites, records.decay, strict=True))), 4, "after_token", 0).frame()
    pd.testing.assert_frame_equal(frame.drop(columns="chosen"), records.drop(columns="chosen"), check_exact=True)
    assert summarise(records, writes, result.config) == result.summary
    assert result.summary.default_site == str(sites[int(np.flatnonzero(records.chosen)[0])])
    assert result.summary.heads == len(host.sites)


def test_heads_by_hand() -> None:
    table = pd.DataFrame({"layer": 3, "head": 1, "write_share": [0.2, 0.4, 0.9], "stable_rank": [1.0, 2.0, 3.0]})
    table = table.assign(delete_kl=[0.5, 0.1, 0.3], state_norm=[5.0, 10.0, 1.0])
    table["singular_values"] = pd.Series([[4.0, 3.0], [10.0, 0.0], [0.6, 0.8]])
    (head,) = heads_of(table, {Site(3, 1): 0.7})
    assert (head.site, head.decay, head.write_share, head.stable_rank, head.delete_kl) == (Site(3, 1), 0.7, 0.4, 2, 0.3)
    assert head.singular_values == pytest.approx((0.8, 0.6))  # medians of 0.8, 1, 0.6 and of 0.6, 0, 0.8
    records = Spectrum((head,), 3, "after_token", 0).frame()
    s = summarise(records, table, SpectrumConfig())
    assert (s.default_site, s.heads, s.remembering) == ("L3.H1", 1, 1)
    assert s.singular_share == pytest.approx(0.64)


def test_default_site_remembers() -> None:
    heads = (
        HeadSpectrum(1, 0, 0.1, 0.99, 1.0, delete_kl=9.0),
        HeadSpectrum(2, 0, 0.9, 0.3, 1.0, delete_kl=0.5),
        HeadSpectrum(2, 1, 0.9, 0.3, 1.0, delete_kl=0.7),
    )
    assert Spectrum(heads, 1, "after_token", 0).default_site() == Site(2, 1)
    assert Spectrum(heads[:1], 1, "after_token", 0).default_site() == Site(1, 0)
    frame = Spectrum(heads, 1, "after_token", 0).frame(Site(2, 0))
    assert frame.chosen.tolist() == [False, True, False]


def test_too_short(host: Host, passages: torch.Tensor) -> None:
    with pytest.raises(InputError, match="at least 4 tokens"):
        spectrum(host, passages[:, :3])
