"""Several dictionaries in one step against each of them alone."""

import pytest
import torch
from test_sparse_loss import CASES, TOLERANCE, K, N, V, make_batch, make_sae

from writesae.errors import InputError
from writesae.sae import BatchTopK, Bilinear, Factored, Flat, Linear, SAEConfig, TopK
from writesae.sae import sparse_loss as module
from writesae.sae.batch import Writes, joined
from writesae.sae.encoding import encode_block
from writesae.sae.loss import Dead
from writesae.sae.sparse_loss import sparse_loss, stacked_loss
from writesae.sae.stack import Stack
from writesae.sae.workspace import Workspace

COUNT = 3


def check(config: SAEConfig, kind: str, masks: torch.Tensor | None) -> None:
    saes = [make_sae(config, seed) for seed in range(COUNT)]
    batches = [make_batch(kind, 10 + seed) for seed in range(COUNT)]
    dead = None if masks is None else Dead(masks, 2, 0.3)
    loss, gradients = stacked_loss(Stack(saes), joined(batches), dead)
    for g, (sae, batch) in enumerate(zip(saes, batches, strict=True)):
        alone, expected = sparse_loss(sae, batch, None if masks is None else Dead(masks[g], 2, 0.3))
        assert torch.equal(loss.fired[g], alone.fired)
        for name in ("error", "full", "aux", "cut"):
            torch.testing.assert_close(getattr(loss, name)[g], getattr(alone, name), rtol=TOLERANCE, atol=1e-6)
        assert gradients[g].keys() == expected.keys()
        for name, want in expected.items():
            assert (gradients[g][name] - want).norm() <= TOLERANCE * want.norm(), name


@pytest.mark.parametrize("kind", ["scalar", "vector", "write", "picked"])
@pytest.mark.parametrize(("encoder", "decoder", "sparsity"), CASES, ids=str)
def test_equals_each_alone(
    kind: str, encoder: Linear | Bilinear, decoder: Flat | Factored, sparsity: TopK | BatchTopK
) -> None:
    config = SAEConfig(K, V, N, encoder, sparsity, decoder)
    check(config, kind, None)
    masks = torch.zeros(COUNT, N, dtype=torch.bool)
    masks[0, 3::4] = True
    masks[2, 5] = True  # one has none, one has fewer than k
    check(config, kind, masks)


@pytest.mark.parametrize("kind", ["scalar", "write", "picked"])
def test_equals_each_alone_whatever_the_blocks(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(module, "BLOCK_NUMBERS", 2 * 13 * 35 * COUNT)
    check(SAEConfig(K, V, N, sparsity=TopK(3)), kind, None)
    check(SAEConfig(K, V, N, sparsity=BatchTopK(3)), kind, None)


@pytest.mark.parametrize("kind", ["scalar", "vector", "write"])
@pytest.mark.parametrize("encoder", [Bilinear(), Bilinear(2), Linear()], ids=str)
def test_half_rounds_the_factors_of_products_only(kind: str, encoder: Bilinear | Linear) -> None:
    """Features are picked as if every factor were a bfloat16 number, with exact sums; the rest is exact."""
    config = SAEConfig(K, V, N, encoder, TopK(3))
    sae, batch = make_sae(config), make_batch(kind)
    loss, gradients = sparse_loss(sae, batch, half=True)
    exact, _ = sparse_loss(sae, batch)
    assert loss.total != exact.total
    assert loss.total == pytest.approx(exact.total.item(), rel=0.02)
    if isinstance(batch, Writes) and isinstance(encoder, Bilinear):
        rounded = Writes(batch.key.bfloat16().float(), batch.update.bfloat16().float())
        clone = make_sae(config)
        for factors in clone.encoder_factors:
            factors.data = factors.data.bfloat16().float()
        want = encode_block(Stack([clone]), rounded, None, Workspace()).pre
        torch.testing.assert_close(encode_block(Stack([sae], half=True), batch, None, Workspace()).pre, want)
    assert all(torch.isfinite(x).all() for x in gradients.values())


def test_different_dictionaries_are_refused() -> None:
    with pytest.raises(InputError, match="different shape or composition"):
        Stack([make_sae(SAEConfig(K, V, N, sparsity=TopK(3))), make_sae(SAEConfig(K, V, N, sparsity=TopK(2)))])
