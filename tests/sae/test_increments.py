"""What a write adds to every feature, against encoding a state with the write and without it."""

from __future__ import annotations

import pytest
import torch

from writesae.sae import SAE, BatchTopK, Bilinear, Factored, Gated, JumpReLU, Linear, SAEConfig, SoftGated, TopK
from writesae.sae.config import Encoder, Sparsity

K, V, N = 5, 7, 11


def some_sae(encoder: Encoder, sparsity: Sparsity, rank: int = 1) -> SAE:
    generator = torch.Generator().manual_seed(3)
    sae = SAE(SAEConfig(K, V, N, encoder, sparsity, Factored(rank), target="state"), generator)
    for parameter in sae.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    return sae.double()


@pytest.mark.parametrize(
    ("encoder", "rank"), [(Bilinear(), 1), (Bilinear(rank=3), 3), (Bilinear(rank=2), 1), (Linear(), 1)]
)
def test_it_is_the_change_of_the_pre_activation(encoder: Encoder, rank: int) -> None:
    sae, generator = some_sae(encoder, TopK(3), rank), torch.Generator().manual_seed(0)
    key, value = (torch.randn(2, 3, d, generator=generator).double() for d in (K, V))
    write = torch.einsum("btk,btv->btkv", key, value)
    for scale in (0.0, 1.0, 10.0):  # whatever the state is
        before = scale * torch.randn(2, 3, K, V, generator=generator).double()
        slow = sae.preactivations(before + write) - sae.preactivations(before)
        torch.testing.assert_close(sae.increments(key, value), slow.detach())


@pytest.mark.parametrize("sparsity", [BatchTopK(3), JumpReLU(), Gated(), SoftGated()])
def test_what_turns_features_on_has_no_part_in_it(sparsity: Sparsity) -> None:
    """But the amount of a gated feature that is on grows by its own slope."""
    sae, generator = some_sae(Bilinear(), sparsity), torch.Generator().manual_seed(0)
    key, value = (torch.randn(13, d, generator=generator).double() for d in (K, V))
    write = torch.einsum("bk,bv->bkv", key, value)
    slow = (sae.preactivations(write) - sae.b_enc).detach()
    slow = slow * sae.r_mag.detach().exp() if isinstance(sparsity, Gated) else slow
    found = sae.increments(key, value)
    torch.testing.assert_close(found, slow)
    if not isinstance(sparsity, SoftGated):
        state = 30 * torch.einsum("nk,nv->nkv", *sae.atoms())  # each far above any threshold of its own feature
        both = [torch.as_tensor(sae.encode(x).dense(N)) for x in (state, state + write[:N])]
        on = torch.arange(N)
        kept = (both[0][on, on] > 0) & (both[1][on, on] > 0)
        assert kept.sum() > 5
        torch.testing.assert_close((both[1] - both[0])[on, on][kept], found[:N][on, on][kept])
