"""The slow, obvious forms that the fast ones are compared with, as the formulas are written. Any dtype."""

from __future__ import annotations

import torch
from torch import Tensor

from writesae.recurrence import Stream, replay_reference
from writesae.recurrence.replay import zero_state
from writesae.recurrence.written import Written
from writesae.sae import SAE
from writesae.sae.batch import Batch, Writes


def states_reference(written: Written, initial: Tensor | None = None) -> Tensor:
    """The states after each token, `[B, T, K, V]`: `S_t = diag(d_t) S_{t-1} + k_t u_t^T`. Differentiable."""
    states = [torch.zeros_like(written.key[:, 0, :, None] * written.update[:, 0, None]) if initial is None else initial]
    for t in range(written.key.shape[1]):
        write = torch.einsum("bk,bv->bkv", written.key[:, t], written.update[:, t])
        states.append(written.log_decay[:, t].exp().unsqueeze(-1) * states[-1] + write)
    return torch.stack(states[1:], 1)


def matrices_reference(batch: Batch) -> Tensor:
    """The matrices that a batch stands for, `[T, K, V]`."""
    if isinstance(batch, Writes):
        return torch.einsum("tk,tv->tkv", batch.key, batch.update)
    states = states_reference(Written(batch.key, batch.update, batch.log_decay), batch.initial)
    return batch.pick(states).flatten(0, 1)


def scan_reference(key: Tensor, update: Tensor, log_decay: Tensor, start: Tensor, v: Tensor, w: Tensor) -> Tensor:
    """`p_i(t) = a_t p_i(t-1) + (k_t . v_i)(u_t . w_i)`, one token at a time. Shapes as `recurrence.scan.scan`."""
    p, result = start, []
    for t in range(key.shape[1]):
        p = log_decay[:, t].exp() * p + (key[:, t] @ v.T) * (update[:, t] @ w.T)
        result.append(p)
    return torch.stack(result, 1)


def delta_values_reference(stream: Stream, initial: Tensor | None = None) -> Tensor:
    """`u_t` read off the replayed states, `[B, T, H, V]`. Any rank-one family, any dtype."""
    if stream.erase_gate is None or stream.erase_read is None:
        return stream.value
    start = zero_state(stream) if initial is None else initial
    states = replay_reference(stream, initial).states
    before = torch.cat([start[:, None], states[:, :-1]], 1)
    read = torch.einsum("bthkv,bthk->bthv", before, stream.erase_read)
    return stream.value - stream.erase_gate * read


def respond_reference(stream: Stream, edit: Tensor, at_token: bool) -> Tensor:
    """Response of the outputs to adding `edit` (`[B, H, K, V]`) to the state after the stream's first token.

    Returns `[B, T, H, V]`, zero at the first token unless `at_token`. Dense, one einsum a term.
    """
    state, decay = edit, stream.log_decay.exp()
    first = torch.einsum("bhkv,bhk->bhv", state, stream.query[:, 0])
    outputs = [first if at_token else torch.zeros_like(first)]
    for t in range(1, stream.key.shape[1]):
        after = decay[:, t, :, :, None] * state
        if stream.erase is not None:
            along, read = stream.erase
            after = after - torch.einsum("bhk,bhl,bhlv->bhkv", along[:, t], read[:, t], state)
        state = after
        outputs.append(torch.einsum("bhkv,bhk->bhv", state, stream.query[:, t]))
    return torch.stack(outputs, 1)


def explained_variance(sae: SAE, matrices: Tensor) -> float:
    """Explained variance of raw matrices `[..., K, V]` by the dense form, about their own mean."""
    flat = matrices.reshape(-1, *matrices.shape[-2:])
    with torch.no_grad():
        error = (flat - sae.decode(sae.encode(flat))).square().sum()
        return float(1 - error / (flat - flat.mean(0)).square().sum())
