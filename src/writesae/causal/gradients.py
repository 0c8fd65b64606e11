"""One backward pass that reaches the outputs of every recurrence asked for (MATH.md section 6)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from writesae.causal.targets import Target, check_target, positions_kept
from writesae.hosts import Host, KernelCall, KernelResult, Tap
from writesae.recurrence import Stream


class Gradients(NamedTuple):
    """A forward and a backward pass over texts `[B, T]`."""

    score: Tensor
    """The target of each row, `[B]`."""
    streams: dict[int, Stream]
    """By layer."""
    outputs: dict[int, Tensor]
    """`o_t = S_t^T q_t`, `[B, T, H, V]`."""
    grads: dict[int, Tensor]
    """`g_t`, the gradient of the row's target with respect to `o_t`, `[B, T, H, V]`, float32."""


def output_gradients(
    host: Host, tokens: Tensor, target: Target, layers: Sequence[int], attention_mask: Tensor | None = None
) -> Gradients:
    """Gradients of a target with respect to the outputs of these layers' recurrences.

    Each output gets a zero added that records its gradient; no parameter and nothing below the lowest layer takes part.
    Raises InputError for a target outside the text, or a layer that is not recurrent.
    """
    check_target(target, tokens.shape[1], host.vocabulary)
    wanted = {host.layer(index).index for index in layers}
    streams: dict[int, Stream] = {}
    outputs: dict[int, Tensor] = {}
    zeros: dict[int, Tensor] = {}

    def after(call: KernelCall, result: KernelResult) -> KernelResult:
        if call.layer not in wanted:
            return result
        streams[call.layer] = call.stream.map(Tensor.detach)
        outputs[call.layer] = result.output.detach()
        zeros[call.layer] = torch.zeros_like(result.output, dtype=torch.float32).requires_grad_()
        return result._replace(output=result.output + zeros[call.layer])

    with torch.enable_grad(), host.tap(Tap(after=after)):
        logits = host.run(tokens, attention_mask, keep=positions_kept(target))
        score = target.score(logits.float(), tokens)
        order = sorted(wanted)
        found = torch.autograd.grad(score.sum(), [zeros[i] for i in order])
    return Gradients(score.detach(), streams, outputs, dict(zip(order, found, strict=True)))
