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
from writesae.sae.metrics import Metrics, evaluate
from writesae.sae.model import SAE
from writesae.sae.presets import PRESETS, Preset, preset
from writesae.sae.record import Record

__all__ = [
    "PRESETS", "SAE", "Atoms", "BatchTopK", "Bilinear", "Codes", "Decoder", "Encoder", "Factored", "Flat",
    "Gated", "JumpReLU", "Linear", "Metrics", "Preset", "Record", "SAEConfig", "SoftGated", "Sparsity", "TopK",
    "evaluate", "preset",
]  # fmt: skip
