"""RWKV-7, in pure torch (the `rwkv7-hf` package) and in fla.

S_t = diag(w_t) S_{t-1} - (a_t * kappa_t)(kappa_t^T S_{t-1}) + k_t v_t^T ,   o_t = S_t^T r_t

The erase reads the state before it decays and writes along a direction of its own, so a token adds two rank-1 pieces.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from writesae.hosts.gated_delta import initial_state, repack, unpack
from writesae.hosts.kernels import Arguments, Kernel, optional_tensor, tensor
from writesae.hosts.tails import Tail, output_gate
from writesae.recurrence import Stream


def _torch_stream(arguments: Arguments) -> Stream:
    """rwkv7-hf hands over the decay itself, and a mask whose False rows leave the state alone and read nothing."""
    read, decay, key, value, a, b = (
        tensor(arguments, name).float() for name in ("receptance", "decay", "key", "value", "a", "b")
    )
    stream = Stream(read, key, value, decay.log(), erase_read=-a, erase_write=b)
    mask = optional_tensor(arguments, "attention_mask")
    return stream if mask is None else stream.map(lambda x: x * mask[:, :, None, None])


TORCH_KERNELS = (
    Kernel(
        "rwkv7_recurrent",
        ("receptance", "decay", "key", "value", "a", "b", "initial_state", "attention_mask"),
        _torch_stream,
        initial_state,
        unpack,
        repack,
    ),
)


def shape(mixer: nn.Module) -> tuple[int, int, int]:
    """`(heads, d_k, d_v)` of an RWKV-7 mixer."""
    heads, d_k = (int(cast(int, getattr(mixer, name))) for name in ("num_heads", "head_dim"))
    return heads, d_k, int(cast(int, getattr(mixer, "head_v_dim", d_k)))


def _apply(mixer: nn.Module, emitted: Tensor, gate: Tensor | None, stream: Stream) -> Tensor:
    """Group norm a head, plus the token's own bonus `(r . k . r_k) v` that no state passes through, times the gate."""
    assert gate is not None
    norm, bonus = cast(nn.GroupNorm, mixer.g_norm), cast(Tensor, mixer.r_k).view(stream.key.shape[2:])
    heads, width = emitted.shape[-2:]
    flat = emitted.reshape(-1, heads * width)
    normed = torch.nn.functional.group_norm(flat, heads, norm.weight, norm.bias, norm.eps).view_as(emitted)
    direct = (stream.query * stream.key * bonus).sum(-1, keepdim=True) * stream.value
    return (normed + direct.to(normed.dtype)) * gate


TORCH_TAIL = Tail(output_gate("g_lora.lora.2"), _apply)
"""The gate's low-rank map is called by method, its last layer as a module."""
FLA_TAIL = Tail(output_gate("g_lora"), _apply)
