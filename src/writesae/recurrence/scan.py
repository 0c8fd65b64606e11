"""Pre-activations of a bilinear encoder without ever forming a state (MATH.md section 3).

    p_i(t) = sum_{s<=t} L[t,s] (k_s . v_i)(u_s . w_i) + c_t v_i^T S_0 w_i,    L[t,s] = prod_{s<r<=t} a_r

One chunk is one matrix product with the lower triangular `L`; scalar decay only.
"""

from __future__ import annotations

import torch
from torch import Tensor


def decay_matrix(log_decay: Tensor) -> tuple[Tensor, Tensor]:
    """`L` (`[B, C, C]`, lower triangular, ones on the diagonal) and `c` (`[B, C]`) of `log_decay` `[B, C, 1]`.

    Only products of decays <= 1 appear, so any decay is safe.
    """
    since = log_decay.squeeze(-1).cumsum(1)
    length = since.shape[1]
    above = torch.ones(length, length, dtype=torch.bool, device=since.device).triu(1)
    gap = since.unsqueeze(2) - since.unsqueeze(1)
    return gap.masked_fill(above, -torch.inf).exp(), since.exp()


def scan_reference(key: Tensor, update: Tensor, log_decay: Tensor, start: Tensor, v: Tensor, w: Tensor) -> Tensor:
    """The same by `p_i(t) = a_t p_i(t-1) + (k_t . v_i)(u_t . w_i)`, one token at a time. Shapes as `scan`."""
    p, result = start, []
    for t in range(key.shape[1]):
        p = log_decay[:, t].exp() * p + (key[:, t] @ v.T) * (update[:, t] @ w.T)
        result.append(p)
    return torch.stack(result, 1)


def scan(key: Tensor, update: Tensor, log_decay: Tensor, start: Tensor | None, v: Tensor, w: Tensor) -> Tensor:
    """`p` `[B, C, N]` of `key` `[B, C, K]`, `update` `[B, C, V]` and factors `v` `[N, K]`, `w` `[N, V]`.

    `start` `[B, N]` is `v_i^T S_0 w_i` for the state before the first token (None where it is zero). Differentiable.
    """
    kept, since = decay_matrix(log_decay)
    p = torch.bmm(kept, (key @ v.T) * (update @ w.T))
    return p if start is None else p + since.unsqueeze(2) * start.unsqueeze(1)


def project(states: Tensor, v: Tensor, w: Tensor) -> Tensor:
    """`v_i^T S w_i` of every feature, `[B, N]`, for `states` `[B, K, V]`. Differentiable."""
    return ((v @ states) * w).sum(-1)
