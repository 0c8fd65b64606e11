"""The encoder's two halves on the factored path: all pre-activations without a graph, then gradients of a few.

"Select densely, differentiate sparsely" (MATH.md section 4): gradients flow only through active (token, feature)
pairs, so the dense pre-activations are computed once, without a graph, and each active pair is differentiated on
the matrix of its token.
"""

from __future__ import annotations

import torch
from torch import Tensor

from writesae.recurrence.scan import decay_matrix
from writesae.sae.batch import Batch
from writesae.sae.config import Bilinear
from writesae.sae.model import SAE
from writesae.sae.preact import flat_factors

Gradients = dict[str, Tensor]


def preactivations(sae: SAE, batch: Batch, matrices: Tensor) -> Tensor:
    """`p` `[T, N]` of every token of a block, with the bias; `matrices` are the block's own, `[T, K, V]`."""
    if not isinstance(sae.config.encoder, Bilinear):
        return torch.addmm(sae.b_enc, matrices.flatten(1), sae.enc.flatten(1).T)
    v, w, rank = flat_factors(sae)
    features = sae.config.features
    if not batch.scalar_decay:
        return sae.b_enc + _by_rank((matrices.mT @ v.T).mT.mul_(w).sum(-1), rank)
    chunks, length = batch.key.shape[:2]
    drive = (batch.key.flatten(0, 1) @ v.T).mul_(batch.update.flatten(0, 1) @ w.T)
    drive = _by_rank(drive, rank)
    if batch.log_decay is None or batch.initial is None:
        return drive.add_(sae.b_enc)
    kept, since = decay_matrix(batch.log_decay)
    start = _by_rank((v @ batch.initial).mul_(w).sum(-1), rank)
    stacked = drive.new_empty(chunks, length + 1, features)
    stacked[:, 0] = start
    stacked[:, 1:] = drive.view(chunks, length, features)
    mixing = torch.cat([since.unsqueeze(2), kept], 2)
    return torch.baddbmm(sae.b_enc, mixing, stacked).flatten(0, 1)


def _by_rank(p: Tensor, rank: int) -> Tensor:
    return p if rank == 1 else p.reshape(*p.shape[:-1], rank, -1).sum(-2)


def gather(factors: Tensor, index: Tensor) -> Tensor:
    """Factor rows of each token's features: `[N, r, d]` and `[T, J]` give `[T, J * r, d]`."""
    return factors.index_select(0, index.flatten()).view(index.shape[0], -1, factors.shape[-1])


def add_rows(into: Tensor, index: Tensor, rows: Tensor) -> None:
    """Add `[T, J * r, d]` rows to the factors `[N, r, d]` that `gather` read them from."""
    into.index_add_(0, index.flatten(), rows.reshape(index.numel(), *into.shape[1:]))


def encoder_gradients(sae: SAE, matrices: Tensor, index: Tensor, slope: Tensor, into: Gradients) -> None:
    """Accumulate the gradients of the encoder from `d loss / d p` of the active pairs (`index`, `slope` `[T, J]`)."""
    into["b_enc"].index_add_(0, index.flatten(), slope.flatten())
    if not isinstance(sae.config.encoder, Bilinear):
        pairs = sparse_pairs(index, slope, sae.config.features)
        into["enc"].add_(torch.sparse.mm(pairs, matrices.flatten(1)).view_as(sae.enc))
        return
    v, w = sae.encoder_factors
    names = ("v_dec", "w_dec") if sae.config.tied else ("v_enc", "w_enc")
    left, right = gather(v, index), gather(w, index)
    weight = slope.repeat_interleave(v.shape[1], 1).unsqueeze(2)
    add_rows(into[names[0]], index, (right @ matrices.mT).mul_(weight))
    add_rows(into[names[1]], index, (left @ matrices).mul_(weight))


def sparse_pairs(index: Tensor, value: Tensor, features: int) -> Tensor:
    """The sparse matrix `[N, T]` of (feature, token) values."""
    token = torch.arange(index.shape[0], device=index.device).unsqueeze(1).expand_as(index)
    where = torch.stack([index.flatten(), token.flatten()])
    return torch.sparse_coo_tensor(where, value.flatten(), (features, index.shape[0]), check_invariants=False)
