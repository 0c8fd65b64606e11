"""Gradients of chosen logits with respect to one layer's recurrence outputs, and what they say of edits.

One forward pass; one backward pass a chosen (position, token) of each passage. `closed` and `direct` are the special
cases that the paper's formula and its completion make of it.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import NamedTuple

import torch
from torch import Tensor, nn

from writesae.hosts import Host, KernelCall, KernelResult, Tap
from writesae.hosts.output import final_norm, head_columns, record_outputs, through_norm, unembed, unembedding
from writesae.recurrence import Stream


class Forward(NamedTuple):
    """A native pass over passages with a graph from one layer's outputs to the logits."""

    outputs: Tensor
    """Zeros `[B, T, H, V]` that were added to the recurrence's outputs: the leaf of the graph."""
    stream: Stream
    logits: Tensor
    """`[B, T, vocabulary]`."""
    residual: Tensor
    """What enters the final norm, `[B, T, width]`, without a graph."""


def forward_from(host: Host, tokens: Tensor, layer: int) -> Forward:
    """Run passages `[B, T]` with the graph of the layers above `layer`'s recurrence."""
    streams: list[Stream] = []
    leaves: list[Tensor] = []
    entered: list[Tensor] = []

    def after(call: KernelCall, result: KernelResult) -> KernelResult:
        if call.layer != layer:
            return result
        streams.append(call.stream)
        leaves.append(torch.zeros_like(result.output).requires_grad_())
        return result._replace(output=result.output + leaves[0])

    def norming(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        entered.append(inputs[0].detach())

    with ExitStack() as stack:
        stack.enter_context(torch.enable_grad())
        stack.callback(final_norm(host).register_forward_pre_hook(norming).remove)
        stack.enter_context(host.tap(Tap(after=after)))
        logits = host.run(tokens, keep=0)
    return Forward(leaves[0], streams[0], logits, entered[-1])


def logit_gradients(forward: Forward, position: Tensor, token: Tensor) -> Tensor:
    """`d logit[b, position[b], token[b]] / d o` for every passage, `[B, T, H, V]`; passages do not mix."""
    with torch.enable_grad():
        chosen = forward.logits[torch.arange(len(position)), position, token]
        (gradient,) = torch.autograd.grad(chosen.sum(), forward.outputs, retain_graph=True)
    return gradient


def direct_gradients(
    host: Host, tokens: Tensor, layer: int, forward: Forward, position: Tensor, token: Tensor
) -> Tensor:
    """The same along the direct path only, at the scored position: gated norm, output projection, final norm,
    unembedding, with everything between taken as it natively is. `[B, H, V]`."""
    recorded = record_outputs(host, tokens, [layer])[layer]
    rows = torch.arange(len(position))

    def at(x: Tensor) -> Tensor:
        return x[rows, position].unsqueeze(1)

    emitted, columns = at(recorded.emitted), head_columns(host, layer)
    gate = None if recorded.gate is None else at(recorded.gate)
    stream = recorded.stream.map(at)
    with torch.enable_grad():
        moved = torch.zeros_like(emitted).requires_grad_()
        projected = through_norm(host, layer, emitted + moved, gate, stream)
        native = at(recorded.projected)
        shift = torch.einsum("bthv,hvw->btw", projected - native, columns)
        logits = unembed(host, at(forward.residual) + shift)
        (gradient,) = torch.autograd.grad(logits[rows, 0, token].sum(), moved)
    return gradient[:, 0]


def closed_gradients(host: Host, layer: int, token: Tensor) -> Tensor:
    """The paper's factor `W_O w . W_U[token]`: no norm at all, `[B, H, V]`."""
    return torch.einsum("hvw,bw->bhv", head_columns(host, layer), unembedding(host)[token])
