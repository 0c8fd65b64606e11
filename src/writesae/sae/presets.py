"""The published variants by name, and exactly what each is.

The paper is inconsistent about which variant "WriteSAE" names: its method section and its cards describe a bilinear
encoder, while its encoder-swap table also lists a rank-1 decoder under a dense encoder, which the research code calls
`rank1`. Here `writesae` is the bilinear one, as in the released checkpoints (`v_i^T S w_i + b_i`, TopK, rank-1 atoms);
the dense-encoder variant is `matrix`. The research code's `bilinear` is the same composition as `writesae`.
"""

from __future__ import annotations

from dataclasses import dataclass

from writesae.errors import ConfigError
from writesae.sae.config import Bilinear, Decoder, Encoder, Factored, Flat, Linear


@dataclass(frozen=True)
class Preset:
    """A composition of encoder and decoder; any sparsity goes with it (published: TopK, k = 32)."""

    encoder: Encoder
    """How pre-activations are computed."""
    decoder: Decoder
    """What an atom is."""
    about: str
    """One line for people."""


PRESETS: dict[str, Preset] = {
    "writesae": Preset(Bilinear(), Factored(), "bilinear encoder, rank-1 atoms (the primary variant)"),
    "writesae_rank2": Preset(Bilinear(2), Factored(2), "bilinear encoder and atoms of rank 2"),
    "writesae_rank4": Preset(Bilinear(4), Factored(4), "bilinear encoder and atoms of rank 4"),
    "bilinear": Preset(Bilinear(), Factored(), "the research code's name for the composition of `writesae`"),
    "bilinear_tied": Preset(Bilinear(tied=True), Factored(), "bilinear encoder that shares its factors with the atoms"),
    "bilinear_flat": Preset(Bilinear(), Flat(), "bilinear encoder, full-matrix atoms"),
    "matrix": Preset(
        Linear(), Factored(), "dense encoder on the whole matrix, rank-1 atoms (`rank1` in the research code)"
    ),
    "flat": Preset(Linear(), Flat(), "dense encoder, full-matrix atoms: an ordinary SAE on the flattened matrix"),
}


def preset(name: str) -> Preset:
    """The preset of that name; raises ConfigError listing the names there are."""
    if name not in PRESETS:
        raise ConfigError(f"unknown preset {name!r}; choose one of {', '.join(PRESETS)}")
    return PRESETS[name]


def name_of(encoder: Encoder, decoder: Decoder) -> str | None:
    """The first preset with these parts, or None."""
    return next((name for name, p in PRESETS.items() if (p.encoder, p.decoder) == (encoder, decoder)), None)
