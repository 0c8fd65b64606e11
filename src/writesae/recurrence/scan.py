"""Pre-activations of a bilinear encoder without ever forming a state (MATH.md section 3).

    p_i(t) = sum_{s<=t} L[t,s] (k_s . v_i)(u_s . w_i) + c_t v_i^T S_0 w_i,    L[t,s] = prod_{s<r<=t} a_r

One chunk is one matrix product with the lower triangular `L`; scalar decay only.
"""

from __future__ import annotations

import torch
from torch import Tensor

from writesae.recurrence.decay import log_sums
from writesae.types import Float

PROJECTED = 1 << 24
"""Most numbers `v_i^T S` (`[N, B, V]`) that are formed at once: of GLA-1.3B one state alone makes 4 million."""


def decay_matrix(log_decay: Float[Tensor, "B C 1"]) -> tuple[Float[Tensor, "B C C"], Float[Tensor, "B C"]]:
    """`L` (`[B, C, C]`, lower triangular, ones on the diagonal) and `c` (`[B, C]`) of `log_decay` `[B, C, 1]`.

    Only products of decays <= 1 appear, so any decay is safe.
    """
    since = log_sums(log_decay.squeeze(-1), 1)[1]
    length = since.shape[1]
    above = torch.ones(length, length, dtype=torch.bool, device=since.device).triu(1)
    gap = since.unsqueeze(2) - since.unsqueeze(1)
    return gap.masked_fill(above, -torch.inf).to(log_decay.dtype).exp(), since.to(log_decay.dtype).exp()


def scan(
    key: Float[Tensor, "B C K"],
    update: Float[Tensor, "B C V"],
    log_decay: Float[Tensor, "B C 1"],
    start: Float[Tensor, "B N"] | None,
    v: Float[Tensor, "N K"],
    w: Float[Tensor, "N V"],
) -> Float[Tensor, "B C N"]:
    """`p` `[B, C, N]` of `key` `[B, C, K]`, `update` `[B, C, V]` and factors `v` `[N, K]`, `w` `[N, V]`.

    `start` `[B, N]` is `v_i^T S_0 w_i` for the state before the first token (None where it is zero). Differentiable.
    """
    kept, since = decay_matrix(log_decay)
    p = torch.bmm(kept, (key @ v.T) * (update @ w.T))
    return p if start is None else p + since.unsqueeze(2) * start.unsqueeze(1)


def project(states: Float[Tensor, "B K V"], v: Float[Tensor, "N K"], w: Float[Tensor, "N V"]) -> Float[Tensor, "B N"]:
    """`v_i^T S w_i` of every feature, `[B, N]`, for `states` `[B, K, V]`. Differentiable."""
    return torch.cat([((v @ some) * w).sum(-1) for some in torch.split(states, max(1, PROJECTED // w.numel()))])
