"""What a family with an erase direction of its own (RWKV-7) takes out of its state, token by token."""

from __future__ import annotations

import torch
from torch import Tensor

from writesae.recurrence import Stream


@torch.no_grad()
def erased_values(stream: Stream) -> Tensor:
    """`f_t^T S_{t-1}`, `[B, T, H, V]`, so that `S_t = diag(d_t) S_{t-1} - e_t erased_t^T + k_t v_t^T`.

    Replays the stream one token at a time from the empty state. Differentiable in nothing; any dtype.
    """
    if stream.erase is None:
        return torch.zeros_like(stream.value)
    along, read = stream.erase
    batch, time, heads, d_k = stream.key.shape
    state = stream.key.new_zeros(batch, heads, d_k, stream.value.shape[-1])
    decay = stream.log_decay.exp().unsqueeze(-1)
    erased = torch.empty_like(stream.value)
    for t in range(time):
        erased[:, t] = torch.einsum("bhk,bhkv->bhv", read[:, t], state)
        state.mul_(decay[:, t])
        state.sub_(along[:, t].unsqueeze(-1) * erased[:, t].unsqueeze(-2))
        state.add_(stream.key[:, t].unsqueeze(-1) * stream.value[:, t].unsqueeze(-2))
    return erased
