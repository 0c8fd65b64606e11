"""The gated delta rule in transformers: Gated DeltaNet (Qwen3.5 and relatives) and Kimi Delta Attention.

S_t = diag(a_t) S_{t-1} - b_t k_t (k_t^T diag(a_t) S_{t-1}) + k_t (b_t v_t)^T,   a_t a scalar (GDN) or a vector (KDA)
"""

from __future__ import annotations

from typing import TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from writesae.hosts.internals import rounds_unit_vectors
from writesae.hosts.kernels import Arguments, Kernel, KernelResult, grouped, optional_tensor, tensor
from writesae.recurrence import Stream

NORM_EPS = 1e-6
"""What the kernels add to the squared length before they normalise queries and keys."""


def unit(x: Tensor) -> Tensor:
    """L2-normalise the last axis as the delta-rule kernels do."""
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + NORM_EPS)


def scaled(arguments: Arguments, query: Tensor) -> Tensor:
    """Queries times the call's scale, by default `K^-1/2`."""
    scale = arguments.get("scale")
    return query * (query.shape[-1] ** -0.5 if scale is None else float(cast(float, scale)))


def query_key(arguments: Arguments, heads: int, narrow: bool = False) -> tuple[Tensor, Tensor]:
    """Queries and keys as the recurrence uses them, `[B, T, heads, K]`, float32; `narrow`: normalised in theirs."""
    query, key = (tensor(arguments, name) if narrow else tensor(arguments, name).float() for name in ("q", "k"))
    if arguments.get("use_qk_l2norm_in_kernel"):
        query, key = unit(query), unit(key)
    query, key = (grouped(x.float(), heads) for x in (query, key))
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


def delta_stream(arguments: Arguments, narrow: bool = False) -> Stream:
    """DeltaNet (no `g`), Gated DeltaNet (`g` a scalar a head) and Kimi Delta Attention (`g` a vector), float32."""
    value = tensor(arguments, "v").float()
    heads = value.shape[2]
    query, key = query_key(arguments, heads, narrow)
    log_decay = _log_decay(arguments, heads)
    beta = tensor(arguments, "beta").float()
    if arguments.get("use_beta_sigmoid_in_kernel"):
        beta = beta.sigmoid() * (2.0 if arguments.get("allow_neg_eigval") else 1.0)
    beta = beta.unsqueeze(-1)
    if log_decay.shape[-1] == 1:
        return Stream(query, key, beta * value, log_decay, erase_read=key, erase_gate=beta * log_decay.exp())
    return Stream(query, key, beta * value, log_decay, erase_read=log_decay.exp() * key, erase_gate=beta)


def _torch_stream(arguments: Arguments) -> Stream:
    """The same as transformers computes it."""
    return delta_stream(arguments, rounds_unit_vectors(tensor(arguments, "v").device.type))


S = TypeVar("S", Tensor, Tensor | None)


def turned(arguments: Arguments, state: S) -> S:
    """A state from the kernel's layout to ours, key-first, or back: some calls of fla keep it value-first."""
    return state.mT if state is not None and arguments.get("state_v_first") else state


def initial_state(arguments: Arguments) -> Tensor | None:
    """A copy of the state handed to the kernel, key-first (it may be the cache's live buffer)."""
    state = optional_tensor(arguments, "initial_state")
    return None if state is None else turned(arguments, state).detach().float().clone()


def unpack(arguments: Arguments, returned: object) -> KernelResult:
    """`(o, final state or None)`."""
    assert isinstance(returned, tuple)
    output, final = returned
    return KernelResult(output, turned(arguments, final), output)


def repack(arguments: Arguments, returned: object, native: KernelResult, changed: KernelResult) -> object:
    """The same pair."""
    assert native.emitted is not None
    final = turned(arguments, changed.final)
    return changed.output.to(native.emitted.dtype), None if final is None else final.contiguous()


PARAMETERS = ("q", "k", "v", "g", "beta")
"""Every caller hands over the first three by position and the rest by name."""


def kernels(*symbols: str) -> tuple[Kernel, ...]:
    """Kernels that take final gates and key-first states, under these names."""
    return tuple(Kernel(symbol, PARAMETERS, _torch_stream, initial_state, unpack, repack) for symbol in symbols)


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
