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
from torch import Tensor, nn
from torch.nn.functional import softplus

from writesae.hosts.gated_delta import unit
from writesae.hosts.kernels import Arguments, Kernel, KernelResult, grouped, optional_tensor, tensor
from writesae.recurrence import Stream, replay, replay_reference


def scaled(arguments: Arguments, query: Tensor) -> Tensor:
    """Queries times the call's scale, by default `K^-1/2`."""
    scale = arguments.get("scale")
    return query * (query.shape[-1] ** -0.5 if scale is None else float(cast(float, scale)))


def query_key(arguments: Arguments, heads: int) -> tuple[Tensor, Tensor]:
    """Queries and keys as the recurrence uses them, `[B, T, heads, K]`, float32."""
    query, key = (grouped(tensor(arguments, name).float(), heads) for name in ("q", "k"))
    if arguments.get("use_qk_l2norm_in_kernel"):
        query, key = unit(query), unit(key)
    return scaled(arguments, query), key


def _log_decay(arguments: Arguments, heads: int) -> Tensor:
    """`log d_t`, `[B, T, H, 1 or K]`: zero for DeltaNet, final or raw for the gated rules."""
    given = optional_tensor(arguments, "g")
    if given is None:
        beta = tensor(arguments, "beta")
        return beta.new_zeros(*beta.shape[:2], heads, 1, dtype=torch.float32)
    gate = given.float() if given.ndim == 4 else given.float().unsqueeze(-1)
    if not arguments.get("use_gate_in_kernel"):
        return gate
    given_rate = optional_tensor(arguments, "A_log")
    rate = gate.new_ones(1) if given_rate is None else given_rate.float().exp().view(heads, 1)
    bias = optional_tensor(arguments, "dt_bias")
    if bias is not None:
        gate = gate + bias.float().view(heads, -1)
    bound = arguments.get("lower_bound")
    return -rate * softplus(gate) if bound is None else float(cast(float, bound)) * torch.sigmoid(rate * gate)


def delta_stream(arguments: Arguments) -> Stream:
    """DeltaNet (no `g`), Gated DeltaNet (`g` a scalar a head) and Kimi Delta Attention (`g` a vector)."""
    value = tensor(arguments, "v").float()
    heads = value.shape[2]
    query, key = query_key(arguments, heads)
    log_decay = _log_decay(arguments, heads)
    beta = tensor(arguments, "beta").float()
    if arguments.get("use_beta_sigmoid_in_kernel"):
        beta = beta.sigmoid() * (2.0 if arguments.get("allow_neg_eigval") else 1.0)
    beta = beta.unsqueeze(-1)
    if log_decay.shape[-1] == 1:
        return Stream(query, key, beta * value, log_decay, erase_read=key, erase_gate=beta * log_decay.exp())
    return Stream(query, key, beta * value, log_decay, erase_read=log_decay.exp() * key, erase_gate=beta)


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


def _value_first(arguments: Arguments) -> bool:
    return bool(arguments.get("state_v_first"))


def _initial(arguments: Arguments) -> Tensor | None:
    state = optional_tensor(arguments, "initial_state")
    if state is None:
        return None
    key_first = state.mT if _value_first(arguments) else state
    return key_first.detach().float().clone()


def _unpack(arguments: Arguments, returned: object) -> KernelResult:
    assert isinstance(returned, tuple)
    output, final = returned
    key_first = final.mT if final is not None and _value_first(arguments) else final
    return KernelResult(output, key_first, output)


def _repack(arguments: Arguments, returned: object, native: KernelResult, changed: KernelResult) -> object:
    assert native.emitted is not None
    final = changed.final
    if final is not None and _value_first(arguments):
        final = final.mT.contiguous()
    return changed.output.to(native.emitted.dtype), final


def _run_in_torch(kernel: Kernel, *args: object, **kwargs: object) -> object:
    """The kernel's own result from its translation, in float32. Differentiable where gradients are wanted."""
    arguments = kernel.name_arguments(args, kwargs)
    stream, initial = kernel.stream(arguments), kernel.initial(arguments)
    run = (replay_reference if torch.is_grad_enabled() else replay)(stream, initial)
    final = run.final if arguments.get("output_final_state") else None
    if final is not None and _value_first(arguments):
        final = final.mT.contiguous()
    return run.outputs.to(tensor(arguments, "v").dtype), final


def kernels(stream: Callable[[Arguments], Stream], parameters: tuple[str, ...], *symbols: str) -> tuple[Kernel, ...]:
    """Kernels that return `(outputs, final state)`, under these names; on a CPU their stream is replayed."""
    bare = (Kernel(symbol, parameters, stream, _initial, _unpack, _repack) for symbol in symbols)
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
