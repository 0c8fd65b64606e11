"""The factored loss against the dense one: value and every gradient, <= 1e-5 relative in fp32."""

import itertools

import pytest
import torch

from references import matrices_reference
from writesae.sae import SAE, BatchTopK, Bilinear, Factored, Flat, Linear, SAEConfig, TopK
from writesae.sae import sparse_loss as module
from writesae.sae.batch import Batch, States, Writes
from writesae.sae.loss import Dead, dense_loss
from writesae.sae.sparse_loss import sparse_loss

torch.set_num_threads(1)  # tiny tensors: threads would only get in each other's way
K, V, N = 5, 7, 23
TOLERANCE = 1e-5
CASES = tuple(
    (encoder, decoder, sparsity)
    for encoder, decoder, sparsity in itertools.product(
        (Bilinear(), Bilinear(2), Bilinear(tied=True), Bilinear(2, True), Linear()),
        (Factored(), Factored(2), Flat()),
        (TopK(3), BatchTopK(3), TopK(3, (2, 11)), TopK(3, (11,), (1, 2)), BatchTopK(3, (13,))),
    )
    if not (isinstance(encoder, Bilinear) and encoder.tied and decoder != Factored(encoder.rank))
)


def make_sae(config: SAEConfig, seed: int = 0) -> SAE:
    g = torch.Generator().manual_seed(seed)
    sae = SAE(config, g)
    with torch.no_grad():
        for p in sae.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=g))
    return sae


def make_batch(kind: str, seed: int = 1) -> Batch:
    g = torch.Generator().manual_seed(seed)
    key, update = torch.randn(6, 13, K, generator=g), torch.randn(6, 13, V, generator=g)
    if kind == "write":
        return Writes(key.flatten(0, 1), update.flatten(0, 1))
    decay = -torch.rand(6, 13, K if kind == "vector" else 1, generator=g)
    picked = torch.rand(6, 13, generator=g).argsort(1)[:, :3] if kind == "picked" else None
    return States(key, update, decay, torch.randn(6, K, V, generator=g), picked)


def check_equal(sae: SAE, batch: Batch, dead: Dead | None) -> None:
    dense = dense_loss(sae, matrices_reference(batch), dead)
    expected = torch.autograd.grad(dense.total, list(sae.parameters()), allow_unused=True)
    loss, gradients = sparse_loss(sae, batch, dead)
    assert loss.total.item() == pytest.approx(dense.total.item(), rel=TOLERANCE)
    assert loss.full.item() == pytest.approx(dense.full.item(), rel=TOLERANCE)
    assert torch.equal(loss.fired, dense.fired)
    for (name, _), want in zip(sae.named_parameters(), expected, strict=True):
        assert want is not None
        error = (gradients[name] - want).norm() / want.norm()
        assert error <= TOLERANCE, f"{name}: {error:.2e}"


@pytest.mark.parametrize("kind", ["scalar", "vector", "write", "picked"])
@pytest.mark.parametrize(("encoder", "decoder", "sparsity"), CASES, ids=str)
def test_equals_dense(
    kind: str, encoder: Linear | Bilinear, decoder: Flat | Factored, sparsity: TopK | BatchTopK
) -> None:
    sae = make_sae(SAEConfig(K, V, N, encoder, sparsity, decoder))
    mask = torch.zeros(N, dtype=torch.bool)
    check_equal(sae, make_batch(kind), None)
    mask[3::4] = True
    check_equal(sae, make_batch(kind), Dead(mask, 2, 0.3))


def test_equals_dense_whatever_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK_NUMBERS", 2 * 13 * 35)
    sae, batch = make_sae(SAEConfig(K, V, N, sparsity=TopK(3))), make_batch("scalar")
    assert len(module.blocks(sae, batch)) == 3
    mask = torch.zeros(N, dtype=torch.bool)
    mask[3::4] = True
    for tokens in (5, 13, 29):
        monkeypatch.setattr(module, "SLICE_NUMBERS", tokens * K * V)
        check_equal(sae, batch, Dead(mask, 2, 0.3))


def test_dead_features_that_never_become_positive_get_no_gradient() -> None:
    sae, batch = make_sae(SAEConfig(K, V, N, sparsity=TopK(3))), make_batch("scalar")
    with torch.no_grad():
        sae.b_enc[:4] = -1e6
    mask = torch.zeros(N, dtype=torch.bool)
    mask[:4] = True
    loss, gradients = sparse_loss(sae, batch, Dead(mask, 2, 0.3))
    assert loss.aux > 0
    assert gradients["v_dec"][:4].abs().max() == 0
