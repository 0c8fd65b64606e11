"""Exact first-order effects of every edit at every position, from one backward pass (MATH.md section 6).

With `g_t = d loss / d o_t` at the recurrence's output, the gradient with respect to the state after token t is

    G_T = q_T g_T^T ,     G_t = q_t g_t^T + (diag(d_{t+1}) - f_{t+1} e_{t+1}^T) G_{t+1}

and adding `eps v w^T` after token t changes the loss by `eps v^T G_t w` to first order. Under `at_token` the edited
token reads the edit itself; under `after_token` the term `q_t g_t^T` of that token is left out.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from writesae.recurrence.stream import Stream
from writesae.types import Float


def adjoint_reference(
    stream: Stream, output_grad: Float[Tensor, "B T H V"], at_token: bool, final: Float[Tensor, "B H K V"] | None = None
) -> Float[Tensor, "B T H K V"]:
    """`G_t` for every token, `[B, T, H, K, V]`, from `output_grad` `[B, T, H, V]`. One einsum a term, any dtype.

    `final` (`[B, H, K, V]`) is the gradient with respect to the state after the last token that comes from
    beyond the stream: zero where the text ends there.
    """
    read = torch.einsum("bthk,bthv->bthkv", stream.query, output_grad)
    decay = stream.log_decay.exp()
    onward = torch.zeros_like(read[:, 0]) if final is None else final
    gradients = []
    for t in reversed(range(stream.key.shape[1])):
        whole = onward + read[:, t]
        gradients.append(whole if at_token else onward)
        onward = decay[:, t, :, :, None] * whole
        if stream.erase is not None:
            along, reads = stream.erase
            onward = onward - torch.einsum("bhk,bhl,bhlv->bhkv", reads[:, t], along[:, t], whole)
    return torch.stack(gradients[::-1], 1)


@torch.no_grad()
def adjoint_products(
    stream: Stream,
    output_grad: Float[Tensor, "B T H V"],
    v: Float[Tensor, "N K"],
    w: Float[Tensor, "N V"],
    at_token: bool,
    final: Float[Tensor, "B H K V"] | None = None,
) -> Float[Tensor, "B T N"]:
    """`v_i^T G_t w_i` for every atom and token of one head, `[B, T, N]`: the form that is used.

    `stream` has one head (`[B, T, 1, d]`), `output_grad` is `[B, T, 1, V]`, `v` `[N, K]`, `w` `[N, V]`,
    `final` `[B, 1, K, V]`. Equal to contracting `adjoint_reference` with each atom, up to rounding.
    """
    if stream.key.shape[2] != 1:
        raise ValueError(f"give one head at a time, not {stream.key.shape[2]}: its atoms are its own")
    head = _Head(
        stream.query[:, :, 0],
        output_grad[:, :, 0],
        stream.log_decay[:, :, 0].exp(),
        None if stream.erase is None else (stream.erase[0][:, :, 0], stream.erase[1][:, :, 0]),
    )
    batch, time, d_k = head.query.shape
    onward = head.query.new_zeros(batch, d_k, w.shape[1]) if final is None else final[:, 0].clone()
    products = _scanned if stream.scalar_decay else _contracted
    return products(head, v, w, at_token, onward, head.query.new_empty(batch, time, len(v)))


class _Head(NamedTuple):
    query: Float[Tensor, "B T K"]
    grad: Float[Tensor, "B T V"]
    decay: Float[Tensor, "B T #K"]
    erase: tuple[Float[Tensor, "B T K"], Float[Tensor, "B T K"]] | None


def _step(head: _Head, t: int, state: Float[Tensor, "B K V"]) -> Float[Tensor, "B 1 V"] | None:
    """Take `state` from onward of token t to onward of token t - 1, in place.

    Returns `h_t = -G_t^T e_t` (`[B, 1, V]`): the step adds `f_t h_t^T` to the decayed gradient.
    """
    state.baddbmm_(head.query[:, t].unsqueeze(2), head.grad[:, t].unsqueeze(1))
    added = None if head.erase is None else -torch.bmm(head.erase[0][:, t].unsqueeze(1), state)
    state.mul_(head.decay[:, t].unsqueeze(-1))
    if head.erase is not None and added is not None:
        state.baddbmm_(head.erase[1][:, t].unsqueeze(2), added)
    return added


def _contracted(
    head: _Head,
    v: Float[Tensor, "N K"],
    w: Float[Tensor, "N V"],
    at_token: bool,
    state: Float[Tensor, "B K V"],
    out: Float[Tensor, "B T N"],
) -> Float[Tensor, "B T N"]:
    """Any decay: contract each token's gradient with every atom."""
    for t in reversed(range(out.shape[1])):
        out[:, t] = ((v @ state) * w).sum(-1)
        if at_token:
            out[:, t] += (head.query[:, t] @ v.T) * (head.grad[:, t] @ w.T)
        _step(head, t, state)
    return out


def _scanned(
    head: _Head,
    v: Float[Tensor, "N K"],
    w: Float[Tensor, "N V"],
    at_token: bool,
    state: Float[Tensor, "B K V"],
    out: Float[Tensor, "B T N"],
) -> Float[Tensor, "B T N"]:
    """Scalar decay: a step back adds two rank-1 pieces, `q_t g_t^T` and `f_t h_t^T`, to the decayed gradient, so
    the products follow a scalar recurrence and no gradient is ever contracted with an atom."""
    priced = ((v @ state) * w).sum(-1)
    for t in reversed(range(out.shape[1])):
        read = (head.query[:, t] @ v.T) * (head.grad[:, t] @ w.T)
        out[:, t] = priced + read if at_token else priced
        priced = head.decay[:, t] * (priced + read)
        added = _step(head, t, state)
        if head.erase is not None and added is not None:
            priced = priced + (head.erase[1][:, t] @ v.T) * (added[:, 0] @ w.T)
    return out
