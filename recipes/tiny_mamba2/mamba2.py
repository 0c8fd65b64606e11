"""The Mamba-2 model that is trained, and forms of its two kernels that a CPU runs quickly.

transformers' torch kernels repeat keys and queries for every head and convolve channel by channel; the forms below
are equal to them (tests/recipes) and keep one key and query a group, so that most of the work is plain products.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad, silu, softplus
from transformers import Mamba2Config, Mamba2ForCausalLM
from transformers.models.mamba2 import modeling_mamba2 as mamba2

CHUNK = 32
"""Chunk that is quickest on a CPU at these head sizes."""


@dataclass(frozen=True)
class Shape:
    """Size of the model."""

    layers: int = 5
    """Mamba-2 blocks; there is nothing else between embedding and final norm."""
    hidden: int = 192
    """Width of the residual stream; the heads' channels are twice it together."""
    d_k: int = 32
    """State size: key and query width, one key and one query a token for all heads of a layer."""
    d_v: int = 32
    """Channels of a head."""


def build_model(shape: Shape, vocabulary: int, device: str) -> Mamba2ForCausalLM:
    """A fresh float32 model on the device, drawn from torch's current seed."""
    config = Mamba2Config(
        vocab_size=vocabulary,
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        state_size=shape.d_k,
        head_dim=shape.d_v,
        num_heads=2 * shape.hidden // shape.d_v,
        n_groups=1,
        chunk_size=64,
        initializer_range=0.02,
        rescale_prenorm_residual=True,
        tie_word_embeddings=True,
        pad_token_id=None,
        bos_token_id=0,
        eos_token_id=0,
    )
    model = Mamba2ForCausalLM(config).float()
    if device == "cpu":
        mamba2.causal_conv1d_fn = convolve
        mamba2.mamba2_chunk_scan = scan
    return model.to(device).train()


def convolve(
    hidden_states: Tensor, weight: Tensor, bias: Tensor | None = None, activation: str | None = None
) -> Tensor:
    """The causal depthwise convolution with SiLU as a sum of shifted copies; `[B, channels, T]`."""
    assert activation == "silu"
    width, length = weight.shape[-1], hidden_states.shape[-1]
    padded = pad(hidden_states.mT.to(weight.dtype), (0, 0, width - 1, 0))  # channels last, as in_proj leaves them
    total = sum(padded[:, i : i + length] * weight[:, i] for i in range(width))
    return silu(total if bias is None else total + bias).to(hidden_states.dtype).mT


def scan(
    hidden_states: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    chunk_size: int,
    D: Tensor,
    dt_bias: Tensor,
    **_: object,
) -> Tensor:
    """Mamba-2's scan from an empty state: `[B, T, H, P]` from `dt` `[B, T, H]` and `B`, `C` `[B, T, 1, N]`.

    Within a chunk the outputs are a masked product of queries and keys, weighed by the decay between them; chunks
    pass their state on one after the other. `chunk_size` and what only decoding needs is left aside.
    """
    assert B.shape[2] == 1
    time, heads, width = hidden_states.shape[1:]
    missing = -time % CHUNK
    step = softplus(dt.float() + dt_bias)
    written = hidden_states.float() * step[..., None]

    def chunks(x: Tensor) -> Tensor:
        return pad(x.flatten(2), (0, 0, 0, missing)).unflatten(1, (-1, CHUNK))  # [B, chunks, CHUNK, ...]

    value, key, query = chunks(written), chunks(B), chunks(C)
    age = chunks(A * step).cumsum(2)  # log of the decay since the chunk's start, [B, chunks, CHUNK, H]
    by_head = age.movedim(3, 2)  # [B, chunks, H, CHUNK]
    between = by_head[..., :, None] - by_head[..., None, :]
    later = torch.ones(CHUNK, CHUNK, dtype=torch.bool, device=between.device).tril()
    weights = (query @ key.mT)[:, :, None] * between.masked_fill(~later, -torch.inf).exp()
    within = (weights @ value.unflatten(3, (heads, width)).movedim(3, 2)).movedim(2, 3)

    def per_channel(x: Tensor) -> Tensor:
        return x.repeat_interleave(width, dim=-1)

    added = key.mT @ (value * per_channel((age[:, :, -1:] - age).exp()))  # [B, chunks, N, H * P]
    kept = per_channel(age[:, :, -1].exp())[:, :, None]
    state, states = torch.zeros_like(added[:, 0]), []
    for chunk in range(added.shape[1]):
        states.append(state)
        state = state * kept[:, chunk] + added[:, chunk]
    across = (query @ torch.stack(states, 1)) * per_channel(age.exp())
    output = (within.flatten(3) + across).flatten(1, 2)[:, :time].unflatten(2, (heads, width))
    return output + D[:, None] * hidden_states
