"""Edit a write without touching a cache: the homogeneous response (MATH.md section 5).

Adding `x w^T` to the state after token `t0` changes the layer's later outputs by `X_t^T q_t` with
`X_t = (diag(d_t) - e_t f_t^T) X_{t-1}` and `X_{t0} = x w^T`. The value side `w` never changes, so only the
`(K,)` key side is propagated: a patched run is the native run plus an additive term on the layer's output.
"""

from __future__ import annotations

import torch
from torch import Tensor

from writesae.recurrence.stream import Stream
from writesae.types import Float


def respond(
    stream: Stream, key: Float[Tensor, "B C H K"], value: Float[Tensor, "B C H V"], at_token: bool
) -> Float[Tensor, "B C T H V"]:
    """Response of the outputs to adding `key value^T` to the state after the stream's first token, many a row:
    `key` `[B, C, H, K]`, `value` `[B, C, H, V]`.

    Row `b` of the stream starts at that row's edited token. Returns `[B, C, T, H, V]`, zero at the first token unless
    `at_token`; differentiable.
    """
    decay, erase = stream.log_decay.exp(), stream.erase
    vector, reads = key, []
    for t in range(stream.key.shape[1]):
        if t > 0:
            before = vector
            vector = decay[:, None, t] * vector
            if erase is not None:
                overlap = (before * erase[1][:, None, t]).sum(-1, keepdim=True)
                vector = vector - overlap * erase[0][:, None, t]
        read = (vector * stream.query[:, None, t]).sum(-1, keepdim=True)
        reads.append(torch.zeros_like(read) if t == 0 and not at_token else read)
    return torch.stack(reads, 2) * value.unsqueeze(2)
