"""More kernels of flash-linear-attention, each a near relative of one in `fla.py`.

Comba and Gated DeltaNet 2 change what a delta rule erases, Simple GLA and retention what GLA forgets; HGRN2 calls GLA's
own kernels and GatedDeltaProduct those of Gated DeltaNet.
"""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import torch
from torch import nn

from writesae.hosts.fla import kernels
from writesae.hosts.gated_delta import delta_stream, query_key, scaled, unit
from writesae.hosts.kernels import Arguments, KernelResult, grouped, tensor
from writesae.recurrence import Stream


def comba_stream(arguments: Arguments) -> Stream:
    """S_t = d_t S_{t-1} - b_t k_t (p_t^T S_{t-1}) + k_t (b_t v_t)^T: what is erased is read before the state decays,
    along `p`, which is the key times a number a head. Normalised, the two still differ by a factor."""
    stream = delta_stream(arguments)
    read = grouped(tensor(arguments, "p").float(), stream.value.shape[2])
    if arguments.get("use_qk_l2norm_in_kernel"):
        read = unit(read)
    along = (read * stream.key).sum(-1, keepdim=True) / stream.key.square().sum(-1, keepdim=True).clamp_min(1e-30)
    beta = tensor(arguments, "beta").float().unsqueeze(-1)
    return replace(stream, erase_gate=beta * along)


def gdn2_stream(arguments: Arguments) -> Stream:
    """S_t = diag(d_t) S_{t-1} - k_t ((d_t * b_t * k_t)^T S_{t-1}) + k_t (w_t * v_t)^T: what it erases is read through a
    gate of its own on every key channel, so that the erase has a direction of its own."""
    value, log_decay, b, w = (tensor(arguments, name).float() for name in ("v", "g", "b", "w"))
    query, key = query_key(arguments, value.shape[2])
    return Stream(query, key, w * value, log_decay, erase_read=log_decay.exp() * b * key, erase_write=key)


def simple_gla_stream(arguments: Arguments) -> Stream:
    """GLA whose decay is one number a head."""
    query, key, value = (tensor(arguments, name).float() for name in ("q", "k", "v"))
    return Stream(scaled(arguments, query), key, value, tensor(arguments, "g").float().unsqueeze(-1))


def retention_stream(arguments: Arguments) -> Stream:
    """GLA whose decay is fixed: 1 - 2^(-5 - h) for head h."""
    query, key, value = (tensor(arguments, name).float() for name in ("q", "k", "v"))
    decay = 1 - 2.0 ** (-5.0 - torch.arange(query.shape[2], dtype=torch.float, device=query.device))
    log_decay = decay.log()[:, None].expand(*query.shape[:3], 1)
    return Stream(scaled(arguments, query), key, value, log_decay)


def _outputs_only(arguments: Arguments, returned: object) -> KernelResult:
    """The parallel form keeps no state; what stands in its place are attention weights."""
    assert isinstance(returned, tuple)
    return KernelResult(returned[0], None, returned[0])


_QKV = ("q", "k", "v")
COMBA = kernels(comba_stream, ("q", "k", "p", "v", "g", "beta"), "fused_recurrent_comba") + kernels(
    comba_stream, ("q", "k", "v", "p", "g", "beta"), "chunk_comba"
)
GDN2 = kernels(gdn2_stream, (*_QKV, "g", "b", "w"), "chunk_gdn2", "fused_recurrent_gdn2")
SIMPLE_GLA = kernels(simple_gla_stream, (*_QKV, "g"), "chunk_simple_gla", "fused_recurrent_simple_gla")
RETENTION = (
    *kernels(retention_stream, _QKV, "chunk_retention", "fused_chunk_retention", "fused_recurrent_retention"),
    *(replace(kernel, unpack=_outputs_only) for kernel in kernels(retention_stream, _QKV, "parallel_retention")),
)
DELTA_PRODUCT = kernels(
    delta_stream, (*_QKV, "g", "beta"), "chunk_gated_delta_product", "fused_recurrent_gated_delta_rule"
)


def hgrn2_shape(mixer: nn.Module) -> tuple[int, int, int]:
    """`(heads, d_k, d_v)` of an HGRN2 mixer: forget channels are the key side."""
    heads, d_k, d_v = (getattr(mixer, name) for name in ("num_heads", "head_f_dim", "head_i_dim"))
    return int(heads), int(d_k), int(d_v)


def several_writes(mixer: nn.Module) -> str:
    """Why a GatedDeltaProduct of more than one Householder step is no host; of one it is a Gated DeltaNet."""
    steps = int(cast(int, mixer.num_householder))
    return (
        f"writes {steps} times a token, one after the other, and a stream holds one write a token" if steps > 1 else ""
    )
