"""The audit against the dense states."""

import pytest
import torch

from writesae.errors import InputError
from writesae.evals.spectrum import HeadSpectrum, Spectrum, spectrum
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
