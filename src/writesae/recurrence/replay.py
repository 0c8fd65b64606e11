"""Rebuild states and outputs from a stream: the slow obvious form, and the one that is used."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from writesae.recurrence.stream import Stream
from writesae.types import Float, Int


class Replayed(NamedTuple):
    """What a replay returns."""

    outputs: Float[Tensor, "B T H V"]
    """`o_t = S_t^T q_t`, `[B, T, H, V]`."""
    final: Float[Tensor, "B H K V"]
    """The state after the last token, `[B, H, K, V]`."""
    states: Float[Tensor, "*n H K V"]
    """The states asked for: `[B, T, H, K, V]` from the reference, `[n, H, K, V]` from `replay(keep=...)`."""


def zero_state(stream: Stream) -> Float[Tensor, "B H K V"]:
    """The empty state that fits a stream, `[B, H, K, V]`."""
    batch, _, heads, d_k = stream.key.shape
    return stream.key.new_zeros(batch, heads, d_k, stream.value.shape[-1])


def replay_reference(stream: Stream, initial: Float[Tensor, "B H K V"] | None = None) -> Replayed:
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
def replay(
    stream: Stream,
    initial: Float[Tensor, "B H K V"] | None = None,
    keep: tuple[Int[Tensor, " n"], Int[Tensor, " n"]] | None = None,
) -> Replayed:
    """The replay that is used: in place, batched matrix products, states kept only where asked.

    `keep` is (row `b`, token `t`), each `[n]`, in any order; `Replayed.states[j]` is row `keep[0][j]`'s state after
    token `keep[1][j]`, and nothing is read: `Replayed.outputs` is empty. Equal to `replay_reference` up to rounding.
    """
    batch, time, heads, d_k = stream.key.shape
    d_v = stream.value.shape[-1]
    flat = batch * heads

    def rows(x: Tensor) -> Tensor:  # [B, T, H, d] -> [T, B*H, d], contiguous a step
        return x.transpose(0, 1).reshape(time, flat, x.shape[-1]).contiguous()

    key, value = rows(stream.key).unsqueeze(3).unbind(), rows(stream.value).unsqueeze(2).unbind()
    decay = rows(stream.log_decay).exp().unsqueeze(3).unbind()
    erase = None if stream.erase is None else tuple(rows(x) for x in stream.erase)
    query = rows(stream.query) if keep is None else None
    state = (zero_state(stream) if initial is None else initial).reshape(flat, d_k, d_v).clone()
    by_row = state.view(batch, heads, d_k, d_v)
    row, token = (state.new_empty(0, dtype=torch.long),) * 2 if keep is None else keep
    token, order = token.sort(stable=True)
    here = torch.split(row[order].to(state.device), torch.bincount(token, minlength=time).tolist())
    kept, done = state.new_empty(len(row), heads, d_k, d_v), 0
    outputs = state.new_empty(0 if query is None else time, flat, d_v)
    for t in range(time):
        if erase is not None:
            erased = torch.bmm(erase[1][t].unsqueeze(1), state)
        state.mul_(decay[t])
        state.baddbmm_(key[t], value[t])
        if erase is not None:
            state.baddbmm_(erase[0][t].unsqueeze(2), erased, alpha=-1)
        if query is not None:
            torch.bmm(query[t].unsqueeze(1), state, out=outputs[t].unsqueeze(1))
        if count := len(here[t]):
            torch.index_select(by_row, 0, here[t], out=kept[done : done + count])
            done += count
    if bool((order[1:] < order[:-1]).any()):  # not asked for in the order of time
        kept = kept[order.argsort()]
    return Replayed(outputs.reshape(-1, batch, heads, d_v).transpose(0, 1), by_row, kept)
