"""The loss without the state against the dense one, for dense codes: value and every gradient."""

import pytest
import torch
from test_sparse_loss import TOLERANCE, K, N, V, make_batch, make_sae

from references import matrices_reference
from writesae.sae import BatchTopK, Bilinear, Factored, Gated, JumpReLU, Linear, SAEConfig, SoftGated, Sparsity, TopK
from writesae.sae.loss import Dead, dense_loss
from writesae.sae.scan_loss import scan_loss, scans
from writesae.sae.step import loss_and_gradients


@pytest.mark.parametrize("kind", ["scalar", "write", "picked"])
@pytest.mark.parametrize("encoder", [Bilinear(), Bilinear(2), Bilinear(tied=True), Bilinear(2, True)], ids=str)
@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("sparsity", [JumpReLU(3.0), Gated(), SoftGated(), TopK(3), BatchTopK(3)], ids=str)
def test_equals_dense(kind: str, encoder: Bilinear, rank: int, sparsity: Sparsity) -> None:
    if encoder.tied and encoder.rank != rank:
        pytest.skip("a tied encoder has the decoder's rank")
    sae, batch = make_sae(SAEConfig(K, V, N, encoder, sparsity, Factored(rank))), make_batch(kind)
    sae.width = 0.7
    mask = torch.zeros(N, dtype=torch.bool)
    mask[3::4] = True
    for dead in (None, Dead(mask, 2, 0.3)):
        dense = dense_loss(sae, matrices_reference(batch), dead)
        wanted = torch.autograd.grad(dense.total, list(sae.parameters()), allow_unused=True)
        loss = scan_loss(sae, batch, dead)
        found = torch.autograd.grad(loss.total, list(sae.parameters()), allow_unused=True)
        assert loss.total.item() == pytest.approx(dense.total.item(), rel=TOLERANCE)
        assert torch.equal(loss.fired, dense.fired)
        for (name, _), got, want in zip(sae.named_parameters(), found, wanted, strict=True):
            assert (got is None) == (want is None), name
            if got is not None and want is not None:
                assert (got - want).norm() <= TOLERANCE * want.norm(), name


@pytest.mark.parametrize("sparsity", [JumpReLU(3.0), Gated(), SoftGated(), TopK(3), BatchTopK(3)], ids=str)
@pytest.mark.parametrize("kind", ["scalar", "vector", "write"])
@pytest.mark.parametrize("encoder", [Linear(), Bilinear()], ids=str)
def test_a_step_leaves_the_dense_gradients(sparsity: Sparsity, kind: str, encoder: Linear | Bilinear) -> None:
    sae, batch = make_sae(SAEConfig(K, V, N, encoder, sparsity)), make_batch(kind)
    sae.width = 0.7
    assert scans(sae, batch) == (encoder == Bilinear() and kind != "vector")
    dense = dense_loss(sae, matrices_reference(batch))
    wanted = torch.autograd.grad(dense.total, list(sae.parameters()), allow_unused=True)
    loss = loss_and_gradients(sae, batch)
    assert loss.total.item() == pytest.approx(dense.total.item(), rel=TOLERANCE)
    for (name, parameter), want in zip(sae.named_parameters(), wanted, strict=True):
        if want is not None:
            assert parameter.grad is not None
            assert (parameter.grad - want).norm() <= TOLERANCE * want.norm(), name
