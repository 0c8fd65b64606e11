"""The loss and its gradients for TopK and BatchTopK, written out by hand on active (token, feature) pairs.

With the residual `E_t = X_t - M - sum_j a_tj v_j w_j^T` of a token, the gradients of `||E_t||^2` are

    d/da_tj = -2 v_j^T E_t w_j     d/dv_j = -2 a_tj E_t w_j     d/dw_j = -2 a_tj E_t^T v_j     d/dM = -2 E_t

and a code's gradient goes to its pre-activation where it is positive (`encoding.encoder_gradients`). Matrices are
rebuilt a block of chunks at a time and never kept. Equal to `loss.dense_loss` in value and gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor

from writesae.sae.batch import Batch
from writesae.sae.codes import Codes
from writesae.sae.config import BatchTopK, Factored, TopK
from writesae.sae.encoding import (
    Gradients,
    add_rows,
    encoder_gradients,
    gather,
    preactivations,
    sparse_pairs,
)
from writesae.sae.loss import Dead, Loss
from writesae.sae.model import SAE
from writesae.sae.sparsity import batch_cut, pack, top_codes

BLOCK_NUMBERS = 1 << 20
"""Numbers in a block's largest tensor: small enough for a core's cache, large enough for its matrix products."""


def blocks(sae: SAE, batch: Batch) -> list[Batch]:
    """The batch cut into groups of whole chunks that fit the cache."""
    length = batch.key.shape[1]
    per_token = max(sae.config.features, sae.config.d_k * sae.config.d_v)
    limit = BLOCK_NUMBERS if batch.key.device.type == "cpu" else 64 * BLOCK_NUMBERS
    size = max(1, limit // (per_token * length))
    return [batch.rows(start, start + size) for start in range(0, batch.key.shape[0], size)]


class _Sums:
    """Running sums of a step."""

    def __init__(self, sae: SAE) -> None:
        self.into: Gradients = {name: torch.zeros_like(p) for name, p in sae.named_parameters()}
        self.error = sae.bias.new_zeros(())
        self.full = sae.bias.new_zeros(())
        self.aux = sae.bias.new_zeros(())
        self.fired = torch.zeros(sae.config.features, dtype=torch.int64, device=sae.bias.device)


@torch.no_grad()
def sparse_loss(sae: SAE, batch: Batch, dead: Dead | None = None, k: int | None = None) -> tuple[Loss, Gradients]:
    """The loss of a batch and the gradient of every parameter, by name. TopK and BatchTopK only.

    `k` replaces the sparsity's own while a schedule lowers it.
    """
    sparsity = sae.config.sparsity
    assert isinstance(sparsity, TopK | BatchTopK)
    k = sparsity.k if k is None else k
    parts = blocks(sae, batch)
    sums, cut = _Sums(sae), sae.bias.new_zeros(())
    if isinstance(sparsity, TopK):
        for part in parts:
            matrices = part.matrices()
            pre = preactivations(sae, part, matrices)
            _block(sae, matrices, pre, top_codes(pre, k), batch.tokens, dead, sums)
    else:
        pres = [preactivations(sae, part, part.matrices()) for part in parts]
        cut = batch_cut(torch.cat(pres), k)
        for part, pre in zip(parts, pres, strict=True):
            codes = pack(pre * ((pre >= cut) & (pre > 0)))
            _block(sae, part.matrices(), pre, codes, batch.tokens, dead, sums)
    loss = Loss(sums.error, sums.full, torch.zeros_like(cut), sums.aux, sums.fired, cut)
    return loss, sums.into


def _block(sae: SAE, matrices: Tensor, pre: Tensor, codes: Codes, tokens: int, dead: Dead | None, sums: _Sums) -> None:
    """Add one block's share of the loss and the gradients."""
    sizes = (*sae.config.prefixes, sae.config.features)
    weight = 1 / (tokens * len(sizes))
    index, value = codes
    slope = torch.zeros_like(value)
    residual = matrices
    for size in sizes:
        used = value if size == sae.config.features else value * (index < size)
        residual = matrices - sae.bias
        error, grad = decoder_step(sae, residual, index, used, weight, sums.into)
        sums.error += error
        sums.into["bias"].sub_(residual.sum(0), alpha=2 * weight)
        slope += grad if size == sae.config.features else grad * (index < size)
        if size == sae.config.features:
            sums.full += error * len(sizes)
    positive = value > 0
    sums.fired += torch.bincount(index[positive], minlength=sae.config.features)
    encoder_gradients(sae, matrices, index, slope * positive, sums.into)
    if dead is None or not dead.mask.any():
        return
    index, value = _dead_codes(pre, dead)
    error, slope = decoder_step(sae, residual, index, value, dead.weight / tokens, sums.into)
    sums.aux += error
    encoder_gradients(sae, matrices, index, slope * (value > 0), sums.into)


def _dead_codes(pre: Tensor, dead: Dead) -> Codes:
    where = dead.mask.nonzero().squeeze(1)
    among = pre.index_select(1, where)
    most = int((among > 0).sum(1).max())
    codes = top_codes(among, max(1, min(dead.k, most)))
    return Codes(where[codes.index], codes.value)


def decoder_step(
    sae: SAE, residual: Tensor, index: Tensor, value: Tensor, weight: float, into: Gradients
) -> tuple[Tensor, Tensor]:
    """Subtract the codes' reconstruction from `residual` `[T, K, V]` in place; accumulate decoder gradients.

    Returns `weight * sum_t ||residual||^2` and its derivative by each code, `[T, J]`.
    """
    if isinstance(sae.config.decoder, Factored):
        rank = sae.v_dec.shape[1]
        left, right = gather(sae.v_dec, index), gather(sae.w_dec, index)
        repeated = value.repeat_interleave(rank, 1).unsqueeze(2) if rank > 1 else value.unsqueeze(2)
        residual.baddbmm_((left * repeated).mT, right, alpha=-1)
        seen_left = left @ residual  # v_j^T E, [T, J r, V]
        seen_right = right @ residual.mT  # E w_j, [T, J r, K]
        slope = (seen_left * right).sum(-1)
        if rank > 1:
            slope = slope.view(*index.shape, rank).sum(-1)
        scaled = repeated * (-2 * weight)
        add_rows(into["v_dec"], index, seen_right.mul_(scaled))
        add_rows(into["w_dec"], index, seen_left.mul_(scaled))
    else:
        pairs = sparse_pairs(index, value, sae.config.features)
        flat = residual.flatten(1)
        flat.sub_(torch.sparse.mm(pairs.t(), sae.dec.flatten(1)))
        atoms = sae.dec.flatten(1)
        slope = torch.stack([(atoms.index_select(0, column) * flat).sum(1) for column in index.unbind(1)], 1)
        into["dec"].add_(torch.sparse.mm(pairs, flat).view_as(sae.dec), alpha=-2 * weight)
    return weight * residual.square().sum(), slope.mul_(-2 * weight)
