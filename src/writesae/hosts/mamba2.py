"""Mamba-2 in transformers: Mamba2, Bamba, Falcon-H1, Nemotron-H, Granite-MoE-hybrid, Zamba2.

S_t = exp(dt_t A) S_{t-1} + B_t (dt_t x_t)^T ,   kernel output = (S_t^T C_t + D x_t) * silu(z_t)

The kernels keep the state value-first (`[B, H, P, N]`); here P = d_v, N = d_k, and everything is key-first. Their
output has the skip `D x` in it, and in Falcon-H1's decode step the gate: what is added to the recurrence's output
has to pass the same gate.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import silu, softplus

from writesae.hosts.kernels import Arguments, Kernel, KernelResult, grouped, optional_tensor, tensor
from writesae.recurrence import Stream


def step_size(dt: Tensor, bias: Tensor | None, curved: object) -> Tensor:
    """`dt_t`, float32, before any clamp, through softplus where `curved`. GPU kernels compute it in float32, the torch
    fallback in its dtype."""
    if dt.device.type != "cpu":
        dt = dt.float()
    if bias is not None:
        dt = dt + bias.to(dt.dtype)
    return (softplus(dt) if curved else dt).float()


def _stream(x: Tensor, dt: Tensor, decay_rate: Tensor, key: Tensor, query: Tensor) -> Stream:
    """`x` `[B, T, H, V]`, `dt` `[B, T, H]`, `decay_rate` `[H]`, `key` and `query` `[B, T, groups, K]`."""
    heads, step = x.shape[2], dt.unsqueeze(-1)
    return Stream(
        grouped(query.float(), heads), grouped(key.float(), heads), x.float() * step, decay_rate.float()[:, None] * step
    )


def _scan_stream(arguments: Arguments) -> Stream:
    dt = step_size(tensor(arguments, "dt"), optional_tensor(arguments, "dt_bias"), arguments.get("dt_softplus"))
    low, high = cast(tuple[float, float], arguments.get("dt_limit", (0.0, float("inf"))))
    x, a, b, c = (tensor(arguments, name) for name in ("x", "A", "B", "C"))
    return _stream(x, dt.clamp(low, high), a, b, c)


def _scan_initial(arguments: Arguments) -> Tensor | None:
    state = optional_tensor(arguments, "initial_states")
    return None if state is None else state.detach().float().mT.clone()


def _scan_skip(arguments: Arguments) -> Tensor | float:
    skip = optional_tensor(arguments, "D")
    return 0.0 if skip is None else skip.float()[:, None] * tensor(arguments, "x").float()


def _scan_unpack(arguments: Arguments, returned: object) -> KernelResult:
    """`(y, final state)` where the state was asked for, else the bare `y`."""
    emitted, final = returned if isinstance(returned, tuple) else (returned, None)
    assert isinstance(emitted, Tensor)
    output = emitted.float() - _scan_skip(arguments)
    return KernelResult(output, None if final is None else final.mT, emitted)


def _scan_emit(arguments: Arguments, output: Tensor) -> Tensor:
    return output + _scan_skip(arguments)


def _scan_repack(arguments: Arguments, returned: object, native: KernelResult, changed: KernelResult) -> object:
    assert native.emitted is not None
    emitted = native.emitted + (changed.output - native.output).to(native.emitted.dtype)
    return (emitted, cast(Tensor, changed.final).mT) if isinstance(returned, tuple) else emitted


def _scan_give(arguments: Arguments, emitted: Tensor, final: Tensor | None) -> object:
    emitted = emitted.to(tensor(arguments, "x").dtype)
    last = None if final is None else final.mT
    return (emitted, last) if arguments.get("return_final_states") else emitted


def _step_stream(arguments: Arguments) -> Stream:
    """One token; per-head quantities come expanded over the channels, and `dt` is not clamped."""
    bias = optional_tensor(arguments, "dt_bias")
    dt = tensor(arguments, "dt")[..., 0]
    dt = step_size(dt, None if bias is None else bias[..., 0], arguments.get("dt_softplus"))
    x, b, c = (tensor(arguments, name).unsqueeze(1) for name in ("x", "B", "C"))
    return _stream(x, dt.unsqueeze(1), tensor(arguments, "A")[:, 0, 0], b, c)


def _step_initial(arguments: Arguments) -> Tensor | None:
    return tensor(arguments, "state").detach().float().mT.clone()


def _step_gate(arguments: Arguments) -> Tensor | float:
    gate = optional_tensor(arguments, "z")
    return 1.0 if gate is None else silu(gate.float()).unsqueeze(1)


def _step_emit(arguments: Arguments, output: Tensor) -> Tensor:
    skip = optional_tensor(arguments, "D")
    with_skip = output if skip is None else output + (skip.float() * tensor(arguments, "x").float()).unsqueeze(1)
    return with_skip * _step_gate(arguments)


def _step_unpack(arguments: Arguments, returned: object) -> KernelResult:
    """The state has just been changed in place; the output is read off it, because a closed gate hides it."""
    assert isinstance(returned, Tensor)
    state = tensor(arguments, "state")
    query = grouped(tensor(arguments, "C").float().unsqueeze(1), state.shape[1]).squeeze(1)
    output = torch.einsum("bhvk,bhk->bhv", state.float(), query).unsqueeze(1)
    return KernelResult(output, state.mT.clone(), returned.unsqueeze(1))


def _step_repack(arguments: Arguments, returned: object, native: KernelResult, changed: KernelResult) -> object:
    assert isinstance(returned, Tensor)
    if changed.final is not native.final:
        tensor(arguments, "state").copy_(cast(Tensor, changed.final).mT)
    added = (changed.output - native.output) * _step_gate(arguments)
    return returned + added.squeeze(1).to(returned.dtype)


def _step_give(arguments: Arguments, emitted: Tensor, final: Tensor | None) -> object:
    return emitted.squeeze(1).to(tensor(arguments, "x").dtype)


KERNELS = (
    Kernel(
        "mamba2_chunk_scan", ("x", "dt", "A", "B", "C"), _scan_stream, _scan_initial, _scan_unpack, _scan_repack,
        _scan_emit, _scan_give,
    ),
    Kernel(
        "mamba2_selective_state_update", ("state", "x", "dt", "A", "B", "C", "D"), _step_stream, _step_initial,
        _step_unpack, _step_repack, _step_emit, _step_give,
    ),
)  # fmt: skip


def shape(mixer: nn.Module) -> tuple[int, int, int]:
    """`(heads, d_k, d_v)` of a transformers Mamba-2 mixer."""
    heads, d_k, d_v = (getattr(mixer, name) for name in ("num_heads", "ssm_state_size", "head_dim"))
    return int(heads), int(d_k), int(d_v)
