"""Dictionaries: encoder x sparsity x decoder, computed densely (the reference) and on the factored path."""

from writesae.sae.codes import Atoms, Codes
from writesae.sae.config import (
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
from writesae.sae.model import SAE

__all__ = [
    "SAE",
    "Atoms",
    "BatchTopK",
    "Bilinear",
    "Codes",
    "Decoder",
    "Encoder",
    "Factored",
    "Flat",
    "Gated",
    "JumpReLU",
    "Linear",
    "SAEConfig",
    "SoftGated",
    "Sparsity",
    "TopK",
]
