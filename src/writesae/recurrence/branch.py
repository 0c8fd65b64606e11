"""Several continuations of the same states, without forming a state: what forked runs read.

Rows that differ only in their inputs share the state they start from. Within a row,

    S_t = D_t S_0 + sum_{s<=t} D_{t<-s} ( k_s v_s^T - e_s g_s^T ) ,     g_s = S_{s-1}^T f_s ,     o_t = S_t^T q_t

where `D_{t<-s}` is the product of the decays after token s. The `g_s` solve one triangular system a row, and every
read of `S_0` is one matrix product for all rows that share it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from writesae.recurrence.decay import log_sums
from writesae.recurrence.stream import Stream
from writesae.recurrence.updates import _decayed_products
from writesae.types import Float


@torch.no_grad()
def branch(stream: Stream, states: Float[Tensor, "R H K V"], copies: int) -> Float[Tensor, "RC T H V"]:
    """Outputs `[R * copies, T, H, V]` of rows that continue `states` `[R, H, K, V]`.

    Row `r * copies + c` of the stream (`[R * copies, T, H, d]`) continues `states[r]`. Equal to `replay_reference`
    from the repeated states up to rounding; memory grows with T^2, not with K V.
    """
    rows = stream.map(lambda x: x.transpose(1, 2))  # [N, H, T, d]
    (before, since), like = log_sums(rows.log_decay, 2), states.dtype
    reads = [rows.query * since.to(like).exp()]
    if rows.erase is None:
        (seen,) = _read(reads, states, copies)
        return (seen + _within(rows.query, rows.key, since) @ rows.value).transpose(1, 2).contiguous()
    along, read = rows.erase
    seen, erased = _read([*reads, read * before.to(like).exp()], states, copies)
    if read.shape[2] > 1:
        coupling = _decayed_products(read, along, before, since).tril(-1)
        right = erased + _decayed_products(read, rows.key, before, since) @ rows.value
        lower = coupling + torch.eye(read.shape[2], dtype=coupling.dtype, device=coupling.device)
        erased = torch.linalg.solve_triangular(lower, right, upper=False, unitriangular=True)
    written = _within(rows.query, rows.key, since) @ rows.value
    return (seen + written - _within(rows.query, along, since) @ erased).transpose(1, 2).contiguous()


def _read(
    vectors: list[Float[Tensor, "RC H _ K"]], states: Float[Tensor, "R H K V"], copies: int
) -> list[Float[Tensor, "RC H _ V"]]:
    """`S_0^T x` for vectors `[R * copies, H, T, K]`: every state is gone through once."""
    sizes = [x.shape[2] for x in vectors]
    every = torch.cat(vectors, 2)
    rows, heads, count, width = every.shape
    together = every.view(rows // copies, copies, heads, count, width).transpose(1, 2).flatten(2, 3)
    found = (together @ states).view(rows // copies, heads, copies, count, -1).transpose(1, 2).flatten(0, 1)
    return list(torch.split(found, sizes, 2))


def _within(
    query: Float[Tensor, "N H T K"], key: Float[Tensor, "N H T K"], since: Float[Tensor, "N H T #K"]
) -> Float[Tensor, "N H T T"]:
    """`q_t^T D_{t<-s} k_s` for s <= t, zero elsewhere, `[N, H, T, T]`."""
    own = torch.diag_embed((query * key).sum(-1))
    return own if query.shape[2] == 1 else own + _decayed_products(query, key, since, since)
