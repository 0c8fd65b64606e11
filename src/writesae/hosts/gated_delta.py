"""The gated delta rule in transformers: Gated DeltaNet (Qwen3.5 and relatives) and Kimi Delta Attention.

S_t = diag(a_t) S_{t-1} - b_t k_t (k_t^T diag(a_t) S_{t-1}) + k_t (b_t v_t)^T,   a_t a scalar (GDN) or a vector (KDA)
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from writesae.hosts.internals import rounds_unit_vectors
from writesae.hosts.kernels import Arguments, Kernel, KernelResult, grouped, optional_tensor, tensor
from writesae.recurrence import Stream

NORM_EPS = 1e-6
"""What the kernels add to the squared length before they normalise queries and keys."""


def unit(x: Tensor) -> Tensor:
    """L2-normalise the last axis as the delta-rule kernels do."""
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + NORM_EPS)


def delta_rule_stream(arguments: Arguments) -> Stream:
    """A gated delta-rule call as a stream, float32. `g` is the log decay, a scalar a head or a vector (KDA)."""
    value = tensor(arguments, "v").float()
    heads, normalise = value.shape[2], bool(arguments.get("use_qk_l2norm_in_kernel", False))
    narrow = rounds_unit_vectors(value.device.type)
    query, key = (tensor(arguments, name) if narrow else tensor(arguments, name).float() for name in ("q", "k"))
    if normalise:
        query, key = unit(query), unit(key)
    query, key = (grouped(x.float(), heads) for x in (query, key))
    scale = arguments.get("scale")
    query = query * (scale if isinstance(scale, float) else query.shape[-1] ** -0.5)
    log_decay = tensor(arguments, "g").float()
    if log_decay.ndim == 3:
        log_decay = log_decay.unsqueeze(-1)
    beta = tensor(arguments, "beta").float().unsqueeze(-1)
    if log_decay.shape[-1] == 1:
        erase_read, erase_gate = key, beta * log_decay.exp()
    else:
        erase_read, erase_gate = log_decay.exp() * key, beta
    return Stream(query, key, beta * value, log_decay, erase_read=erase_read, erase_gate=erase_gate)


def initial_state(arguments: Arguments) -> Tensor | None:
    """A copy of the state handed to the kernel, already key-first (it is the cache's live buffer)."""
    state = optional_tensor(arguments, "initial_state")
    return None if state is None else state.detach().float().clone()


def unpack(arguments: Arguments, returned: object) -> KernelResult:
    """`(o, final state or None)`."""
    assert isinstance(returned, tuple)
    output, final = returned
    return KernelResult(output, final, output)


def repack(arguments: Arguments, returned: object, native: KernelResult, changed: KernelResult) -> object:
    """The same pair."""
    assert native.emitted is not None
    return changed.output.to(native.emitted.dtype), changed.final


PARAMETERS = ("q", "k", "v", "g", "beta")
"""Every caller hands over the first three by position and the rest by name."""


def kernels(*symbols: str) -> tuple[Kernel, ...]:
    """Kernels that take final gates and key-first states, under these names."""
    return tuple(Kernel(symbol, PARAMETERS, delta_rule_stream, initial_state, unpack, repack) for symbol in symbols)


GATED_DELTA_KERNELS = kernels("torch_chunk_gated_delta_rule", "torch_recurrent_gated_delta_rule")
KIMI_DELTA_KERNELS = kernels("chunk_kimi_delta_attention", "recurrent_kimi_delta_attention")


def shape(mixer: nn.Module) -> tuple[int, int, int]:
    """`(heads, d_k, d_v)` of a transformers Gated DeltaNet mixer."""
    heads, d_k, d_v = (getattr(mixer, name) for name in ("num_v_heads", "head_k_dim", "head_v_dim"))
    return int(heads), int(d_k), int(d_v)


def kimi_shape(mixer: nn.Module) -> tuple[int, int, int]:
    """`(heads, d_k, d_v)` of a transformers Kimi Delta Attention mixer, whose two sides are equal."""
    heads, width = (int(cast(int, getattr(mixer, name))) for name in ("num_heads", "head_dim"))
    return heads, width, width
