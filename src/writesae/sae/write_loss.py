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

from writesae.sae.batch import Writes
from writesae.sae.encoding import add_rows, gather
from writesae.sae.stack import Gradients, Stack
from writesae.sae.workspace import Workspace
from writesae.types import Float, Int


@dataclass
class BiasTerms:
    """The bias seen through the atoms, and what its gradients are collected in."""

    seen_v: Float[Tensor, "GN r V"]
    """`M^T v_jr`, `[G N, r, V]`."""
    seen_w: Float[Tensor, "GN r K"]
    """`M w_jr`, `[G N, r, K]`."""
    inner: Float[Tensor, " GN"]
    """`v_j^T M w_j` summed over the rank, `[G N]`."""
    norm: Float[Tensor, " G"]
    """`||M||^2`, `[G]`."""
    for_atoms: Float[Tensor, " GN"]
    """Weighted sum of each feature's codes where its atom is differentiated, `[G N]`."""
    for_bias: Float[Tensor, " GN"]
    """The same where the bias is differentiated, `[G N]`."""
    writes: Float[Tensor, "G K V"]
    """Weighted sum of the writes where the bias is differentiated, `[G, K, V]`."""
    weight: float = 0.0
    """Sum of those weights."""

    @classmethod
    def of(cls, stack: Stack) -> BiasTerms:
        """The terms at the start of a step."""
        v, w = (stack.apart(x).flatten(1, 2) for x in (stack.v_dec, stack.w_dec))
        seen_v = torch.bmm(v, stack.bias).view_as(stack.w_dec)
        zeros = stack.bias.new_zeros(stack.features)
        return cls(
            seen_v=seen_v,
            seen_w=torch.bmm(w, stack.bias.mT).view_as(stack.v_dec),
            inner=(seen_v * stack.w_dec).sum((1, 2)),
            norm=stack.bias.square().sum((1, 2)),
            for_atoms=zeros,
            for_bias=zeros.clone(),
            writes=torch.zeros_like(stack.bias),
        )

    def add_gradients(self, stack: Stack, into: Gradients) -> None:
        """Add what was collected."""
        share = 2 * self.for_atoms[:, None, None]
        into["v_dec"].addcmul_(share, self.seen_w)
        into["w_dec"].addcmul_(share, self.seen_v)
        scaled = stack.apart(self.for_bias[:, None, None] * stack.v_dec).flatten(1, 2)
        made = torch.bmm(scaled.mT, stack.apart(stack.w_dec).flatten(1, 2))
        into["bias"].add_(self.weight * stack.bias + made - self.writes, alpha=2)


def write_decoder_step(
    stack: Stack,
    part: Writes,
    index: Int[Tensor, "T J"],
    value: Float[Tensor, "T J"],
    active: int,
    weight: float,
    bias: BiasTerms,
    into: Gradients,
    work: Workspace,
) -> tuple[Float[Tensor, " G"], Float[Tensor, "T active"]]:
    """`weight * sum_t ||X - M - sum_j a_j v_j w_j^T||^2` of codes `[G T, J]` of each dictionary, `[G]`, and its
    derivative by the first `active`.

    Only those codes' atoms get gradients; the bias does where `active` is all of them (else the residual of the
    others, which it belongs to, is held constant).
    """
    rank = stack.v_dec.shape[1]
    key, update = part
    v, w = gather(stack.v_dec, index, work, "rows"), gather(stack.w_dec, index, work, "other rows")
    on_v, on_w = v[:, : active * rank], w[:, : active * rank]
    codes = value.repeat_interleave(rank, 1) if rank > 1 else value
    with_key, with_update = (v @ key.unsqueeze(2)).squeeze(2), (w @ update.unsqueeze(2)).squeeze(2)
    v_gram = (on_v @ v.mT).mul_(codes.unsqueeze(1))  # a_l (v_j . v_l)
    w_gram = (on_w @ w.mT).mul_(codes.unsqueeze(1))
    seen = _sum_rank(with_key * with_update, rank) - bias.inner[index]
    if active == index.shape[1]:
        slope = seen - _sum_rank(torch.linalg.vecdot(v_gram, on_w @ w.mT), rank)
        error = _plain(stack, key, update, bias) - inner_each(stack, value, seen + slope)
        tokens_codes = value.flatten().mul(weight)
        bias.for_bias.index_add_(0, index.flatten(), tokens_codes)
        bias.writes.baddbmm_(stack.apart(key).mT, stack.apart(update), alpha=weight)
        bias.weight += weight * (len(key) // stack.count)
    else:
        full_v, full_w = v @ v.mT, w @ w.mT
        all_slope = seen - _sum_rank((full_v.mul_(full_w) @ codes.unsqueeze(2)).squeeze(2), rank)
        error = _plain(stack, key, update, bias) - inner_each(stack, value, seen + all_slope)
        slope = all_slope[:, :active]
    on_codes = codes[:, : active * rank].mul(-2 * weight).unsqueeze(2)
    along_key = with_update[:, : active * rank].unsqueeze(2) * key.unsqueeze(1)
    along_update = with_key[:, : active * rank].unsqueeze(2) * update.unsqueeze(1)
    on_index = index[:, :active]
    add_rows(into["v_dec"], on_index, along_key.baddbmm_(w_gram, v, alpha=-1).mul_(on_codes))
    add_rows(into["w_dec"], on_index, along_update.baddbmm_(v_gram, w, alpha=-1).mul_(on_codes))
    bias.for_atoms.index_add_(0, on_index.flatten(), value[:, :active].flatten().mul(weight))
    return weight * error, slope * (-2 * weight)


def inner_each(stack: Stack, left: Float[Tensor, " *shape"], right: Float[Tensor, " *shape"]) -> Float[Tensor, " G"]:
    """`sum left right` over the tokens of each dictionary, `[G]`. No batched product: its sums are too naive."""
    if stack.count == 1:
        return torch.dot(left.flatten(), right.flatten()).unsqueeze(0)
    return (stack.apart(left) * stack.apart(right)).flatten(1).sum(1)


def _plain(
    stack: Stack, key: Float[Tensor, "T K"], update: Float[Tensor, "T V"], bias: BiasTerms
) -> Float[Tensor, " G"]:
    """`sum_t ||k u^T - M||^2`, `[G]`."""
    squares = inner_each(stack, key.square().sum(1), update.square().sum(1))
    seen = torch.bmm(stack.apart(key), stack.bias)
    return squares - 2 * inner_each(stack, seen.flatten(0, 1), update) + len(key) // stack.count * bias.norm


def _sum_rank(x: Tensor, rank: int) -> Tensor:
    return x if rank == 1 else x.view(x.shape[0], -1, rank).sum(2)
