"""Rebuild states and outputs from a stream: the slow obvious form, and the one that is used."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from writesae.recurrence.stream import Stream


class Replayed(NamedTuple):
    """What a replay returns."""

    outputs: Tensor
    """`o_t = S_t^T q_t`, `[B, T, H, V]`."""
    final: Tensor
    """The state after the last token, `[B, H, K, V]`."""
    states: Tensor
    """The states after the tokens asked for, `[B, n, H, K, V]`."""


def zero_state(stream: Stream) -> Tensor:
    """The empty state that fits a stream, `[B, H, K, V]`."""
    batch, _, heads, d_k = stream.key.shape
    return stream.key.new_zeros(batch, heads, d_k, stream.value.shape[-1])


def replay_reference(stream: Stream, initial: Tensor | None = None) -> Replayed:
    """MATH.md section 1 as written, one einsum a term, every state kept. Any dtype; differentiable."""
    state = zero_state(stream) if initial is None else initial
    decay = stream.log_decay.exp()
    states, outputs = [], []
    for t in range(stream.key.shape[1]):
        write = torch.einsum("bhk,bhv->bhkv", stream.key[:, t], stream.value[:, t])
        kept = decay[:, t, :, :, None] * state
        if stream.erase is not None:
            along, read = stream.erase
            kept = kept - torch.einsum("bhk,bhl,bhlv->bhkv", along[:, t], read[:, t], state)
        state = kept + write
        states.append(state)
        outputs.append(torch.einsum("bhkv,bhk->bhv", state, stream.query[:, t]))
    return Replayed(torch.stack(outputs, 1), state, torch.stack(states, 1))


@torch.no_grad()
def replay(stream: Stream, initial: Tensor | None = None, keep: Tensor | None = None) -> Replayed:
    """The replay that is used: in place, batched matrix products, states kept only where asked.

    `keep` holds token indices in rising order; `Replayed.states[:, j]` is the state after token `keep[j]`.
    Equal to `replay_reference` up to rounding.
    """
    batch, time, heads, d_k = stream.key.shape
    d_v = stream.value.shape[-1]
    flat = batch * heads

    def rows(x: Tensor) -> Tensor:  # [B, T, H, d] -> [T, B*H, d], contiguous a step
        return x.transpose(0, 1).reshape(time, flat, x.shape[-1]).contiguous()

    key, value, query = rows(stream.key), rows(stream.value), rows(stream.query)
    decay = rows(stream.log_decay).exp().unsqueeze(-1)
    erase = None if stream.erase is None else tuple(rows(x) for x in stream.erase)
    state = (zero_state(stream) if initial is None else initial).reshape(flat, d_k, d_v).clone()
    wanted = [] if keep is None else keep.tolist()
    kept = state.new_empty(len(wanted), flat, d_k, d_v)
    outputs = state.new_empty(time, flat, d_v)
    slot = 0
    for t in range(time):
        if erase is not None:
            erased = torch.bmm(erase[1][t].unsqueeze(1), state)
        state.mul_(decay[t])
        state.baddbmm_(key[t].unsqueeze(2), value[t].unsqueeze(1))
        if erase is not None:
            state.baddbmm_(erase[0][t].unsqueeze(2), erased, alpha=-1)
        torch.bmm(query[t].unsqueeze(1), state, out=outputs[t].unsqueeze(1))
        if slot < len(wanted) and wanted[slot] == t:
            kept[slot] = state
            slot += 1
    shape = (batch, heads, d_k, d_v)
    return Replayed(
        outputs.reshape(time, batch, heads, d_v).transpose(0, 1),
        state.reshape(shape),
        kept.reshape(len(wanted), *shape).transpose(0, 1),
    )
