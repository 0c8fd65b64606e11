"""Cosines and matchings, against values worked out by hand."""

import math

import pytest
import torch
from test_model import make

from writesae.errors import InputError
from writesae.sae import SAE, Factored, Flat, Linear, SAEConfig, TopK
from writesae.sae.compare import atom_cosines, matched

K, V, N = 5, 7, 23


def test_cosines_by_hand() -> None:
    a, b = (SAE(SAEConfig(2, 2, 2, sparsity=TopK(1))) for _ in range(2))
    with torch.no_grad():
        a.v_dec.copy_(torch.tensor([[[1.0, 0]], [[3.0, 4]]]))
        a.w_dec.copy_(torch.tensor([[[0.0, 2]], [[1.0, 0]]]))
        b.v_dec.copy_(torch.tensor([[[1.0, 0]], [[0.0, 1]]]))
        b.w_dec.copy_(torch.tensor([[[0.0, -1]], [[1.0, 1]]]))
    expected = torch.tensor([[-1.0, 0.0], [0.0, 0.8 / math.sqrt(2)]])
    torch.testing.assert_close(atom_cosines(a, b), expected, atol=1e-6, rtol=0)
    assert [x.tolist() for x in matched(expected.abs())[:2]] == [[0, 1], [0, 1]]


@pytest.mark.parametrize(
    "config",
    [SAEConfig(K, V, N, sparsity=TopK(3), decoder=d) for d in (Factored(), Factored(2))]
    + [SAEConfig(K, V, N, Linear(), TopK(3), Flat())],
    ids=str,
)
def test_a_shuffled_copy_is_matched_exactly(config: SAEConfig) -> None:
    sae, other = make(config), SAE(config).double()
    order = torch.randperm(N)
    state = {n: p if n == "bias" else 2.5 * p[order] for n, p in sae.state_dict().items()}
    other.load_state_dict(state)
    matching = matched(atom_cosines(sae, other))
    torch.testing.assert_close(matching.cosine, torch.ones(N, dtype=torch.float64))
    assert torch.equal(order[matching.second], matching.first)
    dense = [s.atom_matrices().flatten(1) for s in (sae, other)]
    expected = torch.cosine_similarity(dense[0][:, None], dense[1][None], dim=2)
    torch.testing.assert_close(atom_cosines(sae, other), expected)


def test_what_cannot_be_compared_is_refused() -> None:
    flat = make(SAEConfig(K, V, N, Linear(), TopK(3), Flat()))
    with pytest.raises(InputError, match="5 x 7 and 7 x 5"):
        atom_cosines(flat, make(SAEConfig(V, K, N, sparsity=TopK(3))))
