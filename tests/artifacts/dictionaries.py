"""Small dictionaries of every composition, with random numbers everywhere."""

from __future__ import annotations

import torch

from writesae.sae import (
    SAE,
    BatchTopK,
    Bilinear,
    Decoder,
    Encoder,
    Factored,
    Flat,
    Gated,
    JumpReLU,
    Linear,
    SAEConfig,
    SoftGated,
    Sparsity,
    TopK,
)

K, V, N = 11, 7, 23
SPARSITIES: tuple[Sparsity, ...] = (TopK(5), BatchTopK(5), JumpReLU(), Gated(), SoftGated())
PARTS: tuple[tuple[Encoder, Decoder], ...] = (
    (Bilinear(), Factored()),
    (Bilinear(2), Factored(3)),
    (Bilinear(2, tied=True), Factored(2)),
    (Bilinear(), Flat()),
    (Linear(), Factored()),
    (Linear(), Flat()),
)
ALL_CONFIGS = [
    SAEConfig(K, V, N, encoder, sparsity, decoder, "write-delta")
    for encoder, decoder in PARTS
    for sparsity in SPARSITIES
]


def random_sae(config: SAEConfig, seed: int = 0) -> SAE:
    """A dictionary whose every parameter and buffer is random (BatchTopK: with a learnt threshold, so above 0)."""
    generator = torch.Generator().manual_seed(seed)
    sae = SAE(config)
    with torch.no_grad():
        for tensor in sae.state_dict().values():
            tensor.copy_(torch.randn(tensor.shape, generator=generator) / 3)
        if isinstance(config.sparsity, BatchTopK):
            sae.threshold.abs_()
    return sae.eval()


def matrices(seed: int = 1) -> torch.Tensor:
    """`[13, K, V]`."""
    return torch.randn(13, K, V, generator=torch.Generator().manual_seed(seed))


def same(one: SAE, other: SAE) -> bool:
    """Equal configs and bit-equal weights."""
    left, right = one.state_dict(), other.state_dict()
    equal = all(torch.equal(left[name], right[name]) for name in left)
    return one.config == other.config and left.keys() == right.keys() and equal
