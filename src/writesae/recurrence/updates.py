"""The delta-value form: what a token really adds to the state, `k_t u_t^T` (MATH.md section 1).

S_t = diag(d_t) S_{t-1} + k_t u_t^T,      u_t = value_t - erase_gate_t S_{t-1}^T erase_read_t
"""

from __future__ import annotations

import torch
from torch import Tensor

from writesae.recurrence.decay import log_sums
from writesae.recurrence.replay import zero_state
from writesae.recurrence.stream import Stream
from writesae.types import Float

CHUNK = 64
BLOCK = 16
"""Tokens whose vector decays are compared pair by pair, channel by channel."""


@torch.no_grad()
def delta_values(
    stream: Stream, initial: Float[Tensor, "B H K V"] | None = None, chunk: int = CHUNK
) -> tuple[Float[Tensor, "B T H V"], Float[Tensor, "B H K V"]]:
    """`u_t` (`[B, T, H, V]`) and the final state (`[B, H, K, V]`) without forming the states between.

    Within a chunk, `(I + A) U = V' ` with `A[t, s] = gate_t (f_t . D[t-1, s] k_s)` strictly lower triangular, so
    one triangular solve gives a whole chunk. Only products of decays <= 1 appear, so any decay is safe: vector
    decays are compared pair by pair within short blocks and relative to the block's border across blocks.
    """
    if not stream.rank_one:
        raise ValueError("a family with an erase direction of its own has no delta value")
    state = zero_state(stream) if initial is None else initial
    heads_first = stream.map(lambda x: x.transpose(1, 2))  # [B, H, T, d]
    pieces = []
    for start in range(0, stream.key.shape[1], chunk):
        part = heads_first.map(lambda x, s=start: x[:, :, s : s + chunk])  # type: ignore[misc]
        values, state = _chunk_update(part, state)
        pieces.append(values)
    return torch.cat(pieces, 2).transpose(1, 2).contiguous(), state


def _chunk_update(
    part: Stream, state: Float[Tensor, "B H K V"]
) -> tuple[Float[Tensor, "B H C V"], Float[Tensor, "B H K V"]]:
    """One chunk, tensors `[B, H, C, d]`: its delta values and the state after it."""
    length = part.key.shape[2]
    before, since = log_sums(part.log_decay, 2)
    values, like = part.value, state.dtype
    if part.erase_gate is not None and part.erase_read is not None:
        read_now = torch.einsum("bhck,bhkv->bhcv", part.erase_read * before.to(like).exp(), state)
        coupling = part.erase_gate * _decayed_products(part.erase_read, part.key, before, since)
        eye = torch.eye(length, dtype=state.dtype, device=state.device)
        lower = coupling.tril(-1) + eye
        right = values - part.erase_gate * read_now
        values = torch.linalg.solve_triangular(lower, right, upper=False, unitriangular=True)
    to_end = (since[:, :, -1:] - since).to(like).exp()
    new_state = since[:, :, -1].to(like).exp().unsqueeze(-1) * state + (part.key * to_end).transpose(2, 3) @ values
    return values, new_state


def _decayed_products(
    read: Float[Tensor, "B H T K"],
    key: Float[Tensor, "B H T K"],
    read_log: Float[Tensor, "B H T #K"],
    key_log: Float[Tensor, "B H T #K"],
) -> Float[Tensor, "B H T T"]:
    """`P[t, s] = sum_c read[t, c] exp(read_log[t, c] - key_log[s, c]) key[s, c]` for s < t, zero elsewhere."""
    length, like = key.shape[2], key.dtype
    mask = torch.ones(length, length, dtype=torch.bool, device=key.device).tril(-1)
    if read_log.shape[-1] == 1:
        gap = (read_log - key_log.transpose(2, 3)).masked_fill(~mask, -torch.inf)
        return gap.to(like).exp() * (read @ key.transpose(2, 3))
    products = key.new_zeros(*key.shape[:2], length, length)
    for start in range(0, length, BLOCK):
        rows = slice(start, min(start + BLOCK, length))
        here, here_log = read[:, :, rows], read_log[:, :, rows]
        if start > 0:  # earlier keys: both factors relative to the last decay before this block, hence <= 1
            border = key_log[:, :, start - 1 : start]
            left = here * (here_log - border).to(like).exp()
            right = key[:, :, :start] * (border - key_log[:, :, :start]).to(like).exp()
            products[:, :, rows, :start] = left @ right.transpose(2, 3)
        gap = (here_log.unsqueeze(3) - key_log[:, :, None, rows]).to(like)
        weight = gap.masked_fill(~mask[rows, rows, None], -torch.inf).exp() * key[:, :, None, rows]
        products[:, :, rows, rows] = (weight @ here.unsqueeze(-1)).squeeze(-1)
    return products


@torch.no_grad()
def native_values(
    stream: Stream, update: Float[Tensor, "B T H V"], initial: Float[Tensor, "B H K V"] | None = None
) -> Float[Tensor, "B T H V"]:
    """The native write values (`b v`) of a stream whose `value` is unknown but whose `u = update` is stored.

    `value_t = u_t + erase_gate_t S_{t-1}^T erase_read_t`, where the states follow from `update` alone.
    """
    if stream.erase_gate is None or stream.erase_read is None:
        return update
    plain = Stream(stream.query, stream.key, update, stream.log_decay)
    start = zero_state(plain) if initial is None else initial
    heads_first = plain.map(lambda x: x.transpose(1, 2))
    read, gate = stream.erase_read.transpose(1, 2), stream.erase_gate.transpose(1, 2)
    pieces, state = [], start
    for begin in range(0, stream.key.shape[1], CHUNK):
        part = heads_first.map(lambda x, s=begin: x[:, :, s : s + CHUNK])  # type: ignore[misc]
        here, strength = read[:, :, begin : begin + CHUNK], gate[:, :, begin : begin + CHUNK]
        before, since = log_sums(part.log_decay, 2)
        seen = (here * before.to(state.dtype).exp()) @ state + _decayed_products(
            here, part.key, before, since
        ) @ part.value
        pieces.append(part.value + strength * seen)
        _, state = _chunk_update(part, state)
    return torch.cat(pieces, 2).transpose(1, 2).contiguous()
