"""The decoder's half of the loss for writes `X = k u^T`, from inner products alone (MATH.md section 4).

With `y_j = (k . v_j)(u . w_j) - v_j^T M w_j` and `Gram_jl = (v_j . v_l)(w_j . w_l)`:

    ||X - M - sum_j a_j v_j w_j^T||^2 = |k|^2 |u|^2 - 2 k^T M u + ||M||^2 - sum_j a_j (y_j + s_j),   s = y - Gram a
    d/da_j = -2 s_j,    d/dv_j = -2 a_j ((u . w_j) k - M w_j - sum_l a_l (w_j . w_l) v_l),    d/dw_j likewise

What belongs to the bias `M` depends on a token only through its codes, so it is added once a step, by feature.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from writesae.sae.batch import Batch
from writesae.sae.encoding import Gradients, add_rows, gather
from writesae.sae.model import SAE
from writesae.sae.workspace import Workspace


@dataclass
class BiasTerms:
    """The bias seen through the atoms, and what its gradients are collected in."""

    seen_v: Tensor
    """`M^T v_jr`, `[N, r, V]`."""
    seen_w: Tensor
    """`M w_jr`, `[N, r, K]`."""
    inner: Tensor
    """`v_j^T M w_j` summed over the rank, `[N]`."""
    norm: Tensor
    """`||M||^2`."""
    for_atoms: Tensor
    """Weighted sum of each feature's codes where its atom is differentiated, `[N]`."""
    for_bias: Tensor
    """The same where the bias is differentiated, `[N]`."""
    writes: Tensor
    """Weighted sum of the writes where the bias is differentiated, `[K, V]`."""
    weight: float = 0.0
    """Sum of those weights."""

    @classmethod
    def of(cls, sae: SAE) -> BiasTerms:
        """The terms at the start of a step."""
        seen_v = sae.v_dec @ sae.bias
        zeros = sae.bias.new_zeros(sae.config.features)
        return cls(
            seen_v=seen_v,
            seen_w=sae.w_dec @ sae.bias.T,
            inner=(seen_v * sae.w_dec).sum((1, 2)),
            norm=sae.bias.square().sum(),
            for_atoms=zeros,
            for_bias=zeros.clone(),
            writes=torch.zeros_like(sae.bias),
        )

    def add_gradients(self, sae: SAE, into: Gradients) -> None:
        """Add what was collected."""
        share = 2 * self.for_atoms[:, None, None]
        into["v_dec"].addcmul_(share, self.seen_w)
        into["w_dec"].addcmul_(share, self.seen_v)
        made = torch.einsum("n,nrk,nrv->kv", self.for_bias, sae.v_dec, sae.w_dec)
        into["bias"].add_(self.weight * sae.bias + made - self.writes, alpha=2)


def write_decoder_step(
    sae: SAE,
    part: Batch,
    index: Tensor,
    value: Tensor,
    active: int,
    weight: float,
    bias: BiasTerms,
    into: Gradients,
    work: Workspace,
) -> tuple[Tensor, Tensor]:
    """`weight * sum_t ||X - M - sum_j a_j v_j w_j^T||^2` of codes `[T, J]`, and its derivative by the first `active`.

    Only those codes' atoms get gradients; the bias does where `active` is all of them (else the residual of the
    others, which it belongs to, is held constant).
    """
    rank = sae.v_dec.shape[1]
    key, update = part.key.flatten(0, 1), part.update.flatten(0, 1)
    v, w = gather(sae.v_dec, index, work, "rows"), gather(sae.w_dec, index, work, "other rows")
    on_v, on_w = v[:, : active * rank], w[:, : active * rank]
    codes = value.repeat_interleave(rank, 1) if rank > 1 else value
    with_key, with_update = (v @ key.unsqueeze(2)).squeeze(2), (w @ update.unsqueeze(2)).squeeze(2)
    v_gram = (on_v @ v.mT).mul_(codes.unsqueeze(1))  # a_l (v_j . v_l)
    w_gram = (on_w @ w.mT).mul_(codes.unsqueeze(1))
    seen = _sum_rank(with_key * with_update, rank) - bias.inner[index]
    if active == index.shape[1]:
        slope = seen - _sum_rank(torch.linalg.vecdot(v_gram, on_w @ w.mT), rank)
        error = _plain(key, update, sae.bias, bias) - torch.dot(value.flatten(), (seen + slope).flatten())
        tokens_codes = value.flatten().mul(weight)
        bias.for_bias.index_add_(0, index.flatten(), tokens_codes)
        bias.writes.addmm_(key.T, update, alpha=weight)
        bias.weight += weight * key.shape[0]
    else:
        full_v, full_w = v @ v.mT, w @ w.mT
        all_slope = seen - _sum_rank((full_v.mul_(full_w) @ codes.unsqueeze(2)).squeeze(2), rank)
        error = _plain(key, update, sae.bias, bias) - torch.dot(value.flatten(), (seen + all_slope).flatten())
        slope = all_slope[:, :active]
    on_codes = codes[:, : active * rank].mul(-2 * weight).unsqueeze(2)
    along_key = with_update[:, : active * rank].unsqueeze(2) * key.unsqueeze(1)
    along_update = with_key[:, : active * rank].unsqueeze(2) * update.unsqueeze(1)
    on_index = index[:, :active]
    add_rows(into["v_dec"], on_index, along_key.baddbmm_(w_gram, v, alpha=-1).mul_(on_codes))
    add_rows(into["w_dec"], on_index, along_update.baddbmm_(v_gram, w, alpha=-1).mul_(on_codes))
    bias.for_atoms.index_add_(0, on_index.flatten(), value[:, :active].flatten().mul(weight))
    return weight * error, slope * (-2 * weight)


def _plain(key: Tensor, update: Tensor, matrix: Tensor, bias: BiasTerms) -> Tensor:
    """`sum_t ||k u^T - M||^2`."""
    squares = torch.dot(key.square().sum(1), update.square().sum(1))
    return squares - 2 * torch.dot((key @ matrix).flatten(), update.flatten()) + key.shape[0] * bias.norm


def _sum_rank(x: Tensor, rank: int) -> Tensor:
    return x if rank == 1 else x.view(x.shape[0], -1, rank).sum(2)
