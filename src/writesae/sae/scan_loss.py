"""The loss without the state, for sparsities whose codes are dense while training (MATH.md sections 3 and 4).

With `q_j = v_j^T (X - M) w_j` from the scan and the Gram matrix of all atoms,

    ||X - M - sum_j a_j v_j w_j^T||^2 = ||X - M||^2 - 2 a . q + a^T Gram a

and autograd does the rest: JumpReLU and the gates have gradients at features that do not fire. Bilinear encoder,
factored decoder, and scalar decay or a write target.
"""

from __future__ import annotations

import torch
from torch import Tensor

from writesae.recurrence.scan import project, scan
from writesae.sae.batch import Batch, Writes
from writesae.sae.config import Bilinear, Factored, Gated
from writesae.sae.loss import Dead, Loss, sparsity_penalty, training_codes
from writesae.sae.model import SAE
from writesae.sae.workspace import Workspace
from writesae.types import Float

SLICE_NUMBERS = 1 << 18


def scans(sae: SAE, batch: Batch) -> bool:
    """Whether `scan_loss` applies."""
    config = sae.config
    shaped = (
        isinstance(config.encoder, Bilinear)
        and isinstance(config.decoder, Factored)
        and not (config.prefixes or config.levels)
    )
    return shaped and (isinstance(batch, Writes) or batch.scalar_decay)


def inner_products(batch: Batch, v: Float[Tensor, "N r K"], w: Float[Tensor, "N r V"]) -> Float[Tensor, "T N"]:
    """`sum_r v_ir^T X_t w_ir` `[T, N]` for factors `[N, r, K]`, `[N, r, V]`. Differentiable."""
    rank = v.shape[1]
    flat_v, flat_w = v.transpose(0, 1).flatten(0, 1), w.transpose(0, 1).flatten(0, 1)
    if isinstance(batch, Writes):
        p = (batch.key @ flat_v.T) * (batch.update @ flat_w.T)
    else:
        start = project(batch.initial, flat_v, flat_w)
        p = batch.pick(scan(batch.key, batch.update, batch.log_decay, start, flat_v, flat_w))
    return p.reshape(batch.tokens, rank, -1).sum(1)


def overlaps(
    v: Float[Tensor, "n r K"],
    w: Float[Tensor, "n r V"],
    other_v: Float[Tensor, "m s K"],
    other_w: Float[Tensor, "m s V"],
) -> Float[Tensor, "n m"]:
    """Inner products of atoms with others, `[n, m]`, for factors `[n, r, d]` and `[m, r, d]`."""
    by_rank = torch.einsum("nrk,msk->nrms", v, other_v) * torch.einsum("nrv,msv->nrms", w, other_w)
    return by_rank.sum((1, 3))


@torch.no_grad()
def _sums(batch: Batch, slice_tokens: int) -> tuple[Tensor, Tensor]:
    """Mean matrix and mean squared norm."""
    work = Workspace()
    mean = batch.key.new_zeros(batch.key.shape[-1], batch.update.shape[-1])
    square = batch.key.new_zeros(())
    for _, _, matrices in batch.slices(slice_tokens, work):
        mean += matrices.sum(0)
        square += matrices.square().sum()
    return mean / batch.tokens, square / batch.tokens


def scan_loss(sae: SAE, batch: Batch, dead: Dead | None = None) -> Loss:
    """The loss of a batch; every term is differentiable by autograd. Equal to `dense_loss` on its matrices."""
    tokens, bias, v, w = batch.tokens, sae.bias, sae.v_dec, sae.w_dec
    pre = inner_products(batch, *sae.encoder_factors) + sae.b_enc
    codes, cut = training_codes(sae, pre)
    seen = inner_products(batch, v, w)
    along = seen - (torch.einsum("nrk,kv->nrv", v, bias) * w).sum((1, 2))
    gram = overlaps(v, w, v, w)
    mean, square = _sums(batch, max(1, SLICE_NUMBERS // bias.numel()))
    plain = square - 2 * (bias * mean).sum() + bias.square().sum()

    def error(plain: Tensor, weights: Tensor, along: Tensor, gram: Tensor) -> Tensor:
        return plain + (weights * (weights @ gram - 2 * along)).sum() / tokens

    main = error(plain, codes, along, gram)
    penalty = sparsity_penalty(sae, pre, codes)
    if isinstance(sae.config.sparsity, Gated):
        penalty = penalty + error(plain.detach(), pre.relu(), along.detach(), gram.detach())
    aux = pre.new_zeros(())
    if dead is not None and dead.mask.any():
        aux = dead.weight * _aux(sae, pre, codes.detach(), seen, main.detach(), dead)
    return Loss(main, main.detach(), penalty, aux, (codes.detach() > 0).sum(0), cut)


def _aux(sae: SAE, pre: Tensor, codes: Tensor, seen: Tensor, error: Tensor, dead: Dead) -> Tensor:
    """`mean_t ||R - R^||^2` with the residual `R` held constant: only the dead atoms and codes move."""
    where = dead.mask.nonzero().squeeze(1)
    among = pre.index_select(1, where)
    value, index = among.topk(min(dead.k, len(where)), dim=1, sorted=False)
    weights = torch.zeros_like(among).scatter(1, index, value.relu())
    v, w = sae.v_dec[where], sae.w_dec[where]
    offset = (torch.einsum("nrk,kv->nrv", v, sae.bias.detach()) * w).sum((1, 2))
    made = codes @ overlaps(sae.v_dec.detach(), sae.w_dec.detach(), v, w)
    along = seen.index_select(1, where) - offset - made
    return error + (weights * (weights @ overlaps(v, w, v, w) - 2 * along)).sum() / len(pre)
