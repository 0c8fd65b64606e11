"""Gradients at the recurrence: of chosen logits, or of a target, with respect to what layers' heads hand on.

One forward pass with a graph from the outputs of the layers asked for to the logits that are needed, and any number of
backward passes (MATH.md section 6). No parameter and nothing below the lowest layer takes part.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from writesae.causal.budget import passages_at_once, positions_read
from writesae.causal.targets import Target, check_target, positions_kept
from writesae.errors import DataError
from writesae.hosts import Host, KernelCall, KernelResult, Tap
from writesae.hosts.finite import begun, place
from writesae.hosts.intercept import own_thread
from writesae.hosts.output import final_norm, head_columns, record_outputs, through_norm, unembed
from writesae.recurrence import Stream, finite


@dataclass(frozen=True)
class Forward:
    """A native pass over texts `[B, T]`, with its graph."""

    host: Host
    tokens: Tensor
    streams: dict[int, Stream]
    """By layer."""
    outputs: dict[int, Tensor]
    """`o_t = S_t^T q_t`, `[B, T, H, V]`."""
    leaves: dict[int, Tensor]
    """Zeros that were added to them: what gradients are taken with respect to."""
    logits: Tensor
    """`[B, P, vocabulary]`, of the positions that were kept."""
    residual: Tensor
    """What enters the final norm, `[B, T, width]`."""

    def gradients(self, score: Tensor, again: bool = False) -> dict[int, Tensor]:
        """`d score[b] / d o`, by layer `[B, T, H, V]`: of a number `[B]` a row, made of its logits (rows do not mix).

        The graph is let go unless it is wanted `again`. Raises DataError where a gradient is not finite.
        """
        leaves = list(self.leaves.values())
        found = torch.autograd.grad(score, leaves, torch.ones_like(score), retain_graph=again)
        for layer, grad in zip(self.leaves, found, strict=True):
            if not finite(grad):
                row, token, head, _ = place(grad)
                where = f"layer {layer}, head {head}, token {token} of {begun(self.host, self.tokens[row])}"
                raise DataError(f"{self.host.name}: the gradient of the target at {where} is NaN or infinite")
        return dict(zip(self.leaves, found, strict=True))


def forward(host: Host, tokens: Tensor, layers: Sequence[int], keep: int | Tensor = 0) -> Forward:
    """Run texts `[B, T]`; `keep` says of which positions logits are made, as in `Host.run`: with a graph, each is kept
    several times. Raises InputError for a layer that is not recurrent, and where what the graph keeps is not free."""
    wanted = {host.layer(index).index for index in layers}
    length = tokens.shape[1]
    passages_at_once(host, length, min(wanted), read=positions_read(keep, length), graph=True, most=len(tokens))
    streams: dict[int, Stream] = {}
    outputs: dict[int, Tensor] = {}
    leaves: dict[int, Tensor] = {}
    entered: list[Tensor] = []

    def after(call: KernelCall, result: KernelResult) -> KernelResult:
        if call.layer not in wanted:
            return result
        streams[call.layer] = call.stream.map(Tensor.detach)
        outputs[call.layer] = result.output.detach()
        leaves[call.layer] = torch.zeros_like(result.output, dtype=torch.float32).requires_grad_()
        return result._replace(output=result.output + leaves[call.layer])

    def norming(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        entered.append(inputs[0].detach())

    with ExitStack() as stack:
        stack.enter_context(torch.enable_grad())
        stack.callback(final_norm(host).register_forward_pre_hook(own_thread(norming)).remove)
        stack.enter_context(host.tap(Tap(after=after)))
        logits = host.run(tokens, keep=keep)
    return Forward(host, tokens, streams, outputs, leaves, logits, entered[-1])


@dataclass(frozen=True)
class Gradients(Forward):
    """A pass with the gradients of a target; its graph is let go."""

    score: Tensor
    """The target of each row, `[B]`."""
    grads: dict[int, Tensor]
    """`g_t`, the gradient of the row's target with respect to `o_t`, by layer `[B, T, H, V]`, float32."""


def output_gradients(host: Host, tokens: Tensor, target: Target, layers: Sequence[int]) -> Gradients:
    """Gradients of a target with respect to the outputs of these layers' recurrences.

    Raises InputError for a target outside the text, or a layer that is not recurrent.
    """
    check_target(target, tokens.shape[1], host.vocabulary)
    run = forward(host, tokens, sorted(set(layers)), positions_kept(target))
    with torch.enable_grad():
        score = target.score(run.logits, tokens)
    return Gradients(**vars(run), score=score.detach(), grads=run.gradients(score))


def logit_gradients(run: Forward, layer: int, place: Tensor, token: Tensor) -> Tensor:
    """`d logit[b, place[b], token[b]] / d o` of one layer, `[B, T, H, V]`; `place` counts the positions kept."""
    with torch.enable_grad():
        chosen = run.logits[torch.arange(len(place)), place, token]
    return run.gradients(chosen, again=True)[layer]


def direct_gradients(run: Forward, layer: int, position: Tensor, token: Tensor) -> Tensor:
    """The same along the direct path only, at the scored position of the text: gated norm, output projection, final
    norm, unembedding, with everything between taken as it natively is. `[B, H, V]`."""
    host, rows = run.host, torch.arange(len(position))
    recorded = record_outputs(host, run.tokens, [layer])[layer]

    def at(x: Tensor) -> Tensor:
        return x[rows, position].unsqueeze(1)

    emitted, columns = at(recorded.emitted), head_columns(host, layer)
    gate = None if recorded.gate is None else at(recorded.gate)
    with torch.enable_grad():
        moved = torch.zeros_like(emitted).requires_grad_()
        projected = through_norm(host, layer, emitted + moved, gate, recorded.stream.map(at))
        shift = torch.einsum("bthv,hvw->btw", projected - at(recorded.projected), columns)
        logits = unembed(host, at(run.residual) + shift)
        (gradient,) = torch.autograd.grad(logits[rows, 0, token].sum(), moved)
    return gradient[:, 0]
