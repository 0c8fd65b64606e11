"""Kernels of flash-linear-attention: DeltaNet, Gated DeltaNet, Kimi Delta Attention, GLA, RWKV-7.

Some take their gates raw and finish them inside, and some keep states value-first; what a call means is read from
the call itself. On a CPU, where none of them runs, the same translation is replayed in torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import cast

import torch
from torch import nn

from writesae.hosts.gated_delta import delta_stream, initial_state, repack, scaled, turned, unpack
from writesae.hosts.kernels import Arguments, Kernel, optional_tensor, tensor
from writesae.recurrence import Stream, replay, replay_reference


def gla_stream(arguments: Arguments) -> Stream:
    """Gated linear attention: a vector decay, no erase."""
    gate = optional_tensor(arguments, "gk")
    gate = tensor(arguments, "g") if gate is None else gate
    query, key, value = (tensor(arguments, name).float() for name in ("q", "k", "v"))
    return Stream(scaled(arguments, query), key, value, gate.float())


def rwkv7_stream(arguments: Arguments) -> Stream:
    """RWKV-7: `chunk_rwkv7` takes `a = -kappa, b = kappa * a`, the fused form `kk = kappa` and `a`."""
    read, log_decay, key, value, a = (tensor(arguments, name).float() for name in ("r", "w", "k", "v", "a"))
    kappa = optional_tensor(arguments, "kk")
    if kappa is None:
        erase_read, erase_write = -a, tensor(arguments, "b").float()
    else:
        erase_read, erase_write = kappa.float(), kappa.float() * a
    read = read * float(cast(float, arguments.get("scale", 1.0)))
    return Stream(read, key, value, log_decay, erase_read=erase_read, erase_write=erase_write)


def _run_in_torch(kernel: Kernel, *args: object, **kwargs: object) -> object:
    """The kernel's own result from its translation, in float32. Differentiable where gradients are wanted."""
    arguments = kernel.name_arguments(args, kwargs)
    stream, initial = kernel.stream(arguments), kernel.initial(arguments)
    run = (replay_reference if torch.is_grad_enabled() else replay)(stream, initial)
    final = turned(arguments, run.final).contiguous() if arguments.get("output_final_state") else None
    return run.outputs.to(tensor(arguments, "v").dtype), final


def kernels(stream: Callable[[Arguments], Stream], parameters: tuple[str, ...], *symbols: str) -> tuple[Kernel, ...]:
    """Kernels that return `(outputs, final state)`, under these names; on a CPU their stream is replayed."""
    bare = (Kernel(symbol, parameters, stream, initial_state, unpack, repack) for symbol in symbols)
    return tuple(replace(kernel, on_cpu=partial(_run_in_torch, kernel)) for kernel in bare)


_GATED = ("q", "k", "v", "g", "beta")
DELTA = kernels(delta_stream, ("q", "k", "v", "beta"), "chunk_delta_rule", "fused_recurrent_delta_rule")
GATED_DELTA = kernels(delta_stream, _GATED, "chunk_gated_delta_rule", "fused_recurrent_gated_delta_rule")
KIMI = kernels(delta_stream, _GATED, "chunk_kda", "fused_recurrent_kda")
GLA = kernels(gla_stream, ("q", "k", "v", "g"), "chunk_gla", "fused_chunk_gla") + kernels(
    gla_stream, ("q", "k", "v", "gk"), "fused_recurrent_gla"
)
RWKV7 = kernels(rwkv7_stream, ("r", "w", "k", "v", "a", "b"), "chunk_rwkv7") + kernels(
    rwkv7_stream, ("r", "w", "k", "v", "kk", "a"), "fused_mul_recurrent_rwkv7"
)


def shape(mixer: nn.Module) -> tuple[int, int, int]:
    """`(heads, d_k, d_v)` of an fla mixer; value heads where they outnumber key heads."""
    d_k, d_v = (int(cast(int, getattr(mixer, name))) for name in ("head_k_dim", "head_v_dim"))
    heads = getattr(mixer, "num_v_heads", None)
    return int(cast(int, mixer.num_heads if heads is None else heads)), d_k, d_v
