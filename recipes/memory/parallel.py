"""What the families share: gates that start slow, and a recurrence that is quick to train on a CPU."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import PreTrainedModel

from writesae.hosts import Host
from writesae.hosts.intercept import KernelCall, Tap, tap
from writesae.hosts.kernels import KernelResult
from writesae.recurrence import Stream

SLOW = (1e-3, 1e-1)
"""Range of a gate's step size at the start, as flash-linear-attention draws it."""
CHUNK = 32
FASTEST = -5.0
"""Log of the smallest decay that is told from a smaller one: products of decays over half a chunk fit in float32."""


@torch.no_grad()
def slow_gates(bias: Tensor) -> None:
    """Fill a gate's bias so that softplus(bias) = exp(U(log 1e-3, log 0.1)); transformers' own forgets at once."""
    low, high = (math.log(step) for step in SLOW)
    step = torch.exp(low + (high - low) * torch.rand_like(bias))
    bias.copy_(step + torch.log(-torch.expm1(-step)))


@contextmanager
def training(model: PreTrainedModel) -> Iterator[None]:
    """Run every recurrence of the model by `outputs`, whatever its family."""
    host = Host(model, None, "training", str, borrowed=True)
    runnable = next(iter(host.layers.values())).architecture.runnable

    def instead(call: KernelCall) -> KernelResult:
        return KernelResult(outputs(call.stream), None)

    with runnable(model), tap(host.mixers, Tap(instead=instead)):
        yield


def outputs(stream: Stream) -> Tensor:
    """`o_t` from an empty state, `[B, T, H, V]`: products within chunks, states passed on. Differentiable.

    Within a chunk that begins with S (`D_{t<-s}`: the decays after token s),

        g = (I + P(f, e))^{-1} (f~ S + P(f, k) v) ,   o = q~ S + P(q, k) v - P(q, e) g ,   P(x, y)_ts = x_t D_{t<-s} y_s

    with f read before token t's own decay and, like the first sum, s < t there.
    """
    length = stream.key.shape[1]

    def chunks(x: Tensor) -> Tensor:  # [B, T, H, d] -> [B, chunks * H, CHUNK, d]
        x = pad(x, (0, 0, 0, 0, 0, -length % CHUNK))
        return x.unflatten(1, (-1, CHUNK)).transpose(2, 3).flatten(1, 2)

    parts = stream.map(chunks)
    query, key, value, decay = parts.query, parts.key, parts.value, parts.log_decay.clamp(min=FASTEST)
    since = decay.cumsum(2)
    end, middle = since[:, :, -1:], since[:, :, CHUNK // 2 - 1 : CHUNK // 2]

    def product(read: Tensor, at: Tensor, key: Tensor) -> Tensor:  # what is not s <= t may overflow and is not used
        return (read * (at - middle).exp()) @ (key * (middle - since).exp()).mT

    seen, kept = query * since.exp(), end.exp().mT
    within, written = product(query, since, key).tril(), key * (end - since).exp()
    out, added = within @ value, written.mT @ value
    if parts.erase is not None:
        along, read = parts.erase
        before = since - decay
        lower = product(read, before, along).tril(-1) + torch.eye(CHUNK).to(key)
        right = torch.cat([read * before.exp(), product(read, before, key).tril(-1) @ value], -1)
        solved = torch.linalg.solve_triangular(lower, right, upper=False, unitriangular=True)
        of_state, erased = solved.split([key.shape[-1], value.shape[-1]], -1)
        within, gone = product(query, since, along).tril(), (along * (end - since).exp()).mT
        out, added = out - within @ erased, added - gone @ erased
        seen, lost = seen - within @ of_state, gone @ of_state
    heads, shape = stream.key.shape[2], (stream.key.shape[-1], stream.value.shape[-1])
    state, states = key.new_zeros(len(key), heads, *shape), []
    for begin in range(0, key.shape[1], heads):
        here = slice(begin, begin + heads)
        states.append(state)
        after = kept[:, here] * state + added[:, here]
        state = after if parts.erase is None else after - lost[:, here] @ state
    out = out + seen @ torch.cat(states, 1)
    return out.unflatten(1, (-1, heads)).transpose(2, 3).flatten(1, 2)[:, :length]
