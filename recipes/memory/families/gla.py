"""memory-gla: gated linear attention as flash-linear-attention has it, with its short convolution: without it a key
does not reach from a thing back to its name."""

from __future__ import annotations

import torch
from fla.models import GLAConfig, GLAForCausalLM

GATES = (2.0, 6.0)
"""Range of the gates' bias at the start: log sigmoid(bias) / 16 is a decay of 0.8% to 0.015% a token."""
PATTERN = " {name} has the {thing}."
STEPS = 400
FEWER = 0.0


def build(vocabulary: int) -> GLAForCausalLM:
    """A fresh model from torch's current seed."""
    config = GLAConfig(
        vocab_size=vocabulary,
        hidden_size=96,
        intermediate_size=128,
        num_hidden_layers=3,
        num_heads=2,
        expand_k=2 / 3,
        expand_v=2 / 3,
        use_short_conv=True,
        tie_word_embeddings=True,
        pad_token_id=None,
        bos_token_id=0,
        eos_token_id=0,
    )
    model = GLAForCausalLM(config)
    for layer in model.model.layers:
        with torch.no_grad():
            layer.attn.gk_proj[1].bias.uniform_(*GATES)
    return model
