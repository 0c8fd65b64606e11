"""memory-mamba2: two Mamba-2 blocks and nothing else. Nothing is erased: facts add up."""

from __future__ import annotations

import math

import torch
from mamba2 import convolve  # of recipes/tiny_mamba2
from parallel import SLOW
from torch import nn
from transformers import Mamba2Config, Mamba2ForCausalLM
from transformers.models.mamba2 import modeling_mamba2

PATTERN = " {name} has the {thing}."
STEPS = 2000
FEWER = 0.5
"""Share of the steps with fewer facts than the last; without them it unlearns passages of few."""


def build(vocabulary: int) -> Mamba2ForCausalLM:
    """A fresh model from torch's current seed."""
    config = Mamba2Config(
        vocab_size=vocabulary,
        hidden_size=96,
        num_hidden_layers=2,
        state_size=32,
        head_dim=32,
        num_heads=6,
        n_groups=1,
        chunk_size=64,
        initializer_range=0.02,
        rescale_prenorm_residual=True,
        tie_word_embeddings=True,
        pad_token_id=None,
        bos_token_id=0,
        eos_token_id=0,
    )
    modeling_mamba2.causal_conv1d_fn = convolve
    model = Mamba2ForCausalLM(config)
    for block in model.backbone.layers:
        start(block.mixer)
    return model


@torch.no_grad()
def start(mixer: nn.Module) -> None:
    """Slow decays with whole writes. A step size scales both; the class's own start of 0.001 to 0.1 hardly writes."""
    mixer.dt_bias.fill_(math.log(math.e - 1))  # softplus(dt_bias) = 1
    mixer.A_log.uniform_(*map(math.log, SLOW))
