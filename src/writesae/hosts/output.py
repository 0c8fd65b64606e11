"""From a head's output to the logits: gated norm, the head's columns of the output projection, final norm, unembedding.

    logits = scale * W_U final_norm( residual + residual_scale * sum_h W_O[h]^T tail(S_t^T q_t)[h] + ... )

Everything here is the model's own modules and weights; only their order and names differ from class to class.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from writesae.errors import HostError
from writesae.hosts.finite import check_finite
from writesae.hosts.host import Host, StopForward
from writesae.hosts.intercept import KernelCall, Tap, own_thread
from writesae.hosts.kernels import KernelResult
from writesae.hosts.selfcheck import relative
from writesae.recurrence import Stream

FINAL_NORMS = ("norm", "norm_f", "final_layernorm", "hyper_connection_mixer")
"""What models call the norm before their unembedding; Qwen4-Exp's joins its residual streams as well."""


@dataclass(frozen=True)
class HeadOutputs:
    """What one layer's recurrence handed on in one run, `[B, T, H, V]` each, in the model's dtype."""

    stream: Stream
    emitted: Tensor
    """The kernel's outputs: `S_t^T q_t`, with the skip where the kernel adds one (Mamba-2)."""
    gate: Tensor | None
    """The gate's input before its activation; None where the layer has no gate."""
    projected: Tensor
    """What entered the output projection."""


@torch.no_grad()
def record_outputs(host: Host, tokens: Tensor, layers: Sequence[int]) -> dict[int, HeadOutputs]:
    """The outputs of these layers' heads for token ids `[B, T]`, with the gates that they meet."""
    wanted = {host.layer(index).index for index in layers}
    calls: dict[int, tuple[Stream, Tensor]] = {}
    gates: dict[int, Tensor] = {}
    found: dict[int, HeadOutputs] = {}

    def after(call: KernelCall, result: KernelResult) -> KernelResult:
        if call.layer in wanted:
            assert result.emitted is not None
            calls[call.layer] = call.stream, result.emitted
        return result

    def projecting(layer: int, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        stream, emitted = calls[layer]
        gate = gates.get(layer)
        shape = stream.value.shape
        found[layer] = HeadOutputs(
            stream, emitted, None if gate is None else gate.reshape(shape), inputs[0].reshape(shape)
        )
        if set(found) == wanted:
            raise StopForward

    with ExitStack() as stack:
        for index in wanted:
            architecture, mixer = host.layers[index].architecture, host.mixers[index].module
            stack.callback(architecture.tail.watch(mixer, own_thread(partial(gates.__setitem__, index))))
            out = mixer.get_submodule(architecture.out_proj)
            stack.callback(out.register_forward_pre_hook(own_thread(partial(projecting, index))).remove)
        stack.enter_context(host.tap(Tap(after=after)))
        stack.enter_context(suppress(StopForward))
        host.run(tokens)
    for one in found.values():
        check_finite(host, one.projected, tokens)
    return found


def through_norm(host: Host, layer: int, emitted: Tensor, gate: Tensor | None, stream: Stream) -> Tensor:
    """Kernel outputs `[B, T, H, V]` -> what enters the output projection, `[B, T, H, V]`. Differentiable.

    Give the recorded gate and stream beside changed outputs to see what the change becomes.
    """
    with host.tap():
        return host.layer(layer).architecture.tail.apply(host.mixers[layer].module, emitted, gate, stream)


def head_columns(host: Host, layer: int) -> Tensor:
    """`W_O` by head, `[H, V, width]`: `projected[h] @ columns[h]`, summed over heads, is added to the residual stream
    (plus the projection's bias, where it has one), with the model's own residual scale included.

    Raises HostError where there is no one residual stream to add it to.
    """
    place = host.layer(layer)
    if place.architecture.no_direct_path:
        why = place.architecture.no_direct_path
        raise HostError(f"{host.name} has no direct path from a head to the logits: {why}")
    module = host.mixers[layer].module.get_submodule(place.architecture.out_proj)
    weight = _matrix(host, module, f"layer {layer}'s output projection", place.heads * place.d_v)
    columns = weight.T.reshape(place.heads, place.d_v, weight.shape[0])
    return columns * place.architecture.residual_scale(host.config)


@torch.no_grad()
def _matrix(host: Host, module: nn.Module, name: str, width: int) -> Tensor:
    """The matrix `[out, width]` by which a module multiplies: its weight, or where it is wrapped (adapters, packed or
    offloaded weights) what it does to each direction. Raises HostError where it is not linear, as where it rounds its
    inputs."""
    if type(module) is nn.Linear and type(module.weight) is nn.Parameter and not module.weight.is_meta:
        return module.weight.detach()
    ones = torch.eye(width, dtype=host.dtype, device=host.device)
    constant = module(torch.zeros_like(ones[:1]))
    matrix: Tensor = (module(ones) - constant).T
    some = torch.randn(7, width, generator=torch.Generator().manual_seed(0)).to(ones)
    off = relative(module(some) - constant, some @ matrix.T)
    if off > max(1e-5, 4 * torch.finfo(host.dtype).eps):
        raise HostError(
            f"{host.name}: {name} ({type(module).__name__}) is not linear (off by {off:.1e}), so no head has columns "
            "of its own in it: load the model without quantised activations"
        )
    return matrix


def final_norm(host: Host) -> nn.Module:
    """The norm before the unembedding."""
    parent = host.model.get_submodule(host.block_list.rpartition(".")[0])
    return next(module for name, module in parent.named_children() if name in FINAL_NORMS)


def unembedding(host: Host) -> Tensor:
    """`W_U`, `[vocabulary, width]`, with the model's own logit scale included."""
    module = cast(nn.Module, host.model.get_output_embeddings())  # type: ignore[no-untyped-call]
    return _matrix(host, module, "the unembedding", host.config.hidden_size) * _logit_scale(host)


def _logit_scale(host: Host) -> float:
    return next(iter(host.layers.values())).architecture.logit_scale(host.config)


def unembed(host: Host, hidden: Tensor) -> Tensor:
    """Residual stream `[..., width]` after the last layer -> logits `[..., vocabulary]`. Differentiable."""
    head = cast(nn.Module, host.model.get_output_embeddings())  # type: ignore[no-untyped-call]
    with host.tap():
        return cast(Tensor, head(final_norm(host)(hidden))) * _logit_scale(host)
