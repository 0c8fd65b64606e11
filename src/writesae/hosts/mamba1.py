"""Mamba-1 in transformers (Mamba, FalconMamba), for the audit of heads alone.

    S_t[d, n] = exp(dt_t[d] A[d, n]) S_{t-1}[d, n] + dt_t[d] x_t[d] B_t[n]
    kernel output = (S_t C_t + D x_t) * silu(z_t)

Every number of a layer's state, `d_inner x 16`, decays at a rate of its own: as one matrix it has no transition
`diag(d_t)`. Row by row it has: channel d is a head with d_k = 16 and d_v = 1, all of them with one key `B_t`. So the
recurrence is replayed and patched as any host's, and the audit puts the channels together again: one site a layer.

The kernels keep the gate and the skip inside, and the one for prompts takes no initial state: a text is continued token
by token.
"""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import silu
from transformers import Cache

from writesae.hosts.cache_kinds import TRANSFORMERS
from writesae.hosts.kernels import Arguments, Kernel, KernelResult, optional_tensor, tensor
from writesae.hosts.mamba2 import step_size
from writesae.hosts.tails import Tail
from writesae.recurrence import Stream, replay


def _rows(arguments: Arguments, name: str) -> Tensor:
    """What one call hands over as `[B, D, T]` or, of a single token, `[B, D]`: `[B, T, D]`."""
    given = tensor(arguments, name)
    return given.unsqueeze(1) if given.ndim == 2 else given.mT


def _stream(arguments: Arguments) -> Stream:
    x, dt, key, query = (_rows(arguments, name) for name in ("x", "dt", "B", "C"))
    kind = "dt" if "state" in arguments else "delta"
    curved, bias = arguments.get(f"{kind}_softplus"), optional_tensor(arguments, f"{kind}_bias")
    step = step_size(dt, bias, curved).unsqueeze(-1)
    query, key = (y.float().unsqueeze(2).expand(-1, -1, x.shape[-1], -1) for y in (query, key))
    return Stream(query, key, step * x.float().unsqueeze(-1), step * tensor(arguments, "A").float())


def _initial(arguments: Arguments) -> Tensor | None:
    state = optional_tensor(arguments, "state")
    return None if state is None else state.detach().float().unsqueeze(-1).clone()


def _gate(arguments: Arguments) -> Tensor | float:
    return 1.0 if arguments.get("z") is None else silu(_rows(arguments, "z").float()).unsqueeze(-1)


def _emit(arguments: Arguments, output: Tensor) -> Tensor:
    skip = optional_tensor(arguments, "D")
    whole = output if skip is None else output + (skip.float() * _rows(arguments, "x").float()).unsqueeze(-1)
    return whole * _gate(arguments)


def _as_given(arguments: Arguments, emitted: Tensor) -> Tensor:
    """`[B, T, D, 1]` in the kernel's own layout and dtype."""
    x = tensor(arguments, "x")
    return (emitted.squeeze(-1).mT if x.ndim == 3 else emitted[:, 0, :, 0]).to(x.dtype)


@torch.no_grad()
def _unpack(arguments: Arguments, returned: object) -> KernelResult:
    """A closed gate hides what was read, so it is read again: off the state that a step has just changed in place."""
    state = optional_tensor(arguments, "state")
    given, final = returned if isinstance(returned, tuple) else (returned, state)
    emitted, stream = _rows({"given": given}, "given").unsqueeze(-1), _stream(arguments)
    if state is None:
        output = replay(stream).outputs
    else:
        output = (state.float().unsqueeze(1) * stream.query).sum(-1, keepdim=True)
    return KernelResult(output, None if final is None else final.unsqueeze(-1).clone(), emitted)


def _repack(arguments: Arguments, returned: object, native: KernelResult, changed: KernelResult) -> object:
    added = _as_given(arguments, (changed.output - native.output) * _gate(arguments))
    out, final = returned if isinstance(returned, tuple) else (returned, None)
    state = optional_tensor(arguments, "state")
    if state is not None and changed.final is not native.final:
        state.copy_(cast(Tensor, changed.final).squeeze(-1))
    return out + added if final is None else (out + added, cast(Tensor, changed.final).squeeze(-1))


def _give(arguments: Arguments, emitted: Tensor, final: Tensor | None) -> object:
    out = _as_given(arguments, emitted)
    return (out, None if final is None else final.squeeze(-1)) if arguments.get("return_last_state") else out


KERNELS = tuple(
    Kernel(symbol, parameters, _stream, _initial, _unpack, _repack, _emit, _give)
    for symbol, parameters in (
        ("mamba_selective_scan", ("x", "dt", "A", "B", "C")),
        ("mamba_selective_state_update", ("state", "x", "dt", "A", "B", "C", "D")),
    )
)


def _read(cache: Cache, layer: int) -> Tensor | None:
    state = TRANSFORMERS.read(cache, layer)
    return None if state is None else state.unsqueeze(-1)


CACHE = replace(
    TRANSFORMERS, read=_read, write=lambda cache, layer, state: TRANSFORMERS.write(cache, layer, state[..., 0])
)
"""Its states are `[B, D, 16]`."""

TAIL = Tail(lambda mixer, report: lambda: None, lambda mixer, emitted, gate, stream: emitted)
"""Nothing comes after the kernel."""


def shape(mixer: nn.Module) -> tuple[int, int, int]:
    """`(d_inner, 16, 1)` of a Mamba-1 mixer: a head is a channel."""
    return int(cast(int, mixer.intermediate_size)), int(cast(int, mixer.ssm_state_size)), 1
