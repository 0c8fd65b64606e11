"""memory-deltanet: DeltaNet as flash-linear-attention has it; it never forgets, it only erases."""

from __future__ import annotations

from fla.models import DeltaNetConfig, DeltaNetForCausalLM

PATTERN = " {name} has the {thing}."
STEPS = 300
FEWER = 0.0


def build(vocabulary: int) -> DeltaNetForCausalLM:
    """A fresh model from torch's current seed."""
    config = DeltaNetConfig(
        vocab_size=vocabulary,
        hidden_size=96,
        intermediate_size=128,
        num_hidden_layers=3,
        num_heads=2,
        expand_k=2 / 3,
        expand_v=2 / 3,
        tie_word_embeddings=True,
        pad_token_id=None,
        bos_token_id=0,
        eos_token_id=0,
    )
    return DeltaNetForCausalLM(config)
