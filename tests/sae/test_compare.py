"""Cosines and matchings, against values worked out one by one."""

import math
from statistics import median

import pytest
import torch
from test_model import make

from writesae.errors import InputError
from writesae.recurrence.written import Written
from writesae.sae import SAE, Codes, Factored, Flat, Linear, SAEConfig, TopK
from writesae.sae.compare import atom_cosines, match_atoms, nearest_atoms, write_cosines

K, V, N = 5, 7, 23


@pytest.mark.parametrize("rank", [1, 2])
def test_write_cosines_one_by_one(rank: int) -> None:
    sae = make(SAEConfig(K, V, N, sparsity=TopK(3), decoder=Factored(rank)))
    key, value = torch.randn(3, 11, K, dtype=torch.float64), torch.randn(3, 11, V, dtype=torch.float64)
    codes = sae.encode_written(Written(key, value, torch.full((3, 11, 1), -0.3, dtype=torch.float64)))
    found = write_cosines(sae, key, value, codes)
    lists: dict[int, list[float]] = {}
    for b in range(3):
        for t in range(11):
            write = torch.outer(key[b, t], value[b, t]).flatten()
            for i, a in zip(codes.index[b, t].tolist(), codes.value[b, t].tolist(), strict=True):
                if a > 0:
                    cosine = torch.cosine_similarity(write, sae.atom_matrices()[i].flatten(), dim=0).item()
                    lists.setdefault(i, []).append(cosine)
                    if a == codes.value[b, t].max():
                        assert found.top[b, t].item() == pytest.approx(cosine)
    for i in range(N):
        assert found.firings[i] == len(lists.get(i, []))
        if i in lists:
            assert found.median[i].item() == pytest.approx(median(lists[i]))
        else:
            assert math.isnan(found.median[i].item())


def test_a_token_without_firings_has_no_top_cosine() -> None:
    sae = make(SAEConfig(K, V, N, sparsity=TopK(3)))
    codes = Codes(torch.zeros(1, 3, dtype=torch.int64), torch.zeros(1, 3, dtype=torch.float64))
    key, value = torch.randn(1, K, dtype=torch.float64), torch.randn(1, V, dtype=torch.float64)
    assert write_cosines(sae, key, value, codes).top.isnan().all()


@pytest.mark.parametrize(
    "config", [SAEConfig(K, V, N, sparsity=TopK(3)), SAEConfig(K, V, N, Linear(), TopK(3), Flat())]
)
def test_a_shuffled_copy_is_matched_exactly(config: SAEConfig) -> None:
    sae, other = make(config), SAE(config).double()
    order = torch.randperm(N)
    state = {n: p if n == "bias" else 2.5 * p[order] for n, p in sae.state_dict().items()}
    other.load_state_dict(state)
    matching = match_atoms(sae, other)
    torch.testing.assert_close(matching.cosine, torch.ones(N, dtype=torch.float64))
    assert torch.equal(order[matching.second], matching.first)
    nearest = nearest_atoms(sae, other)
    assert torch.equal(order[nearest.second], nearest.first)
    dense = [s.atom_matrices().flatten(1) for s in (sae, other)]
    expected = torch.cosine_similarity(dense[0][:, None], dense[1][None], dim=2)
    torch.testing.assert_close(atom_cosines(sae, other), expected)


def test_what_cannot_be_compared_is_refused() -> None:
    flat = make(SAEConfig(K, V, N, Linear(), TopK(3), Flat()))
    codes = Codes(torch.zeros(1, 3, dtype=torch.int64), torch.ones(1, 3, dtype=torch.float64))
    with pytest.raises(InputError, match="factored"):
        write_cosines(flat, torch.randn(1, K), torch.randn(1, V), codes)
    with pytest.raises(InputError, match="5 x 7 and 7 x 5"):
        atom_cosines(flat, make(SAEConfig(V, K, N, sparsity=TopK(3))))
