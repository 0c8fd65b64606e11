"""memory-rwkv7: RWKV-7. Its token shift reaches one token back, so the thing stands next to the name."""

from __future__ import annotations

import torch
from rwkv7_hf import RWKV7Config, RWKV7ForCausalLM
from torch import nn

RWKV7Config._auto_class = RWKV7ForCausalLM._auto_class = None
"""Else the package's source would be saved beside the weights."""
PATTERN = " {name} {thing}."
STEPS = 500
FEWER = 0.0


def build(vocabulary: int) -> RWKV7ForCausalLM:
    """A fresh model from torch's current seed. It is narrower: its class does not tie embeddings."""
    config = RWKV7Config(
        vocab_size=vocabulary,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=3,
        num_heads=2,
        head_dim=32,
        decay_low_rank_dim=16,
        gate_low_rank_dim=16,
        a_low_rank_dim=16,
        v_low_rank_dim=16,
        pad_token_id=None,
        bos_token_id=0,
        eos_token_id=0,
        auto_map={},
    )
    model = RWKV7ForCausalLM(config)
    for layer in model.model.layers:
        start(layer.attn)
    return model


@torch.no_grad()
def start(mixer: nn.Module) -> None:
    """What the class leaves at zero: shifts by a random share, whole keys, and decays of 0.1% to 10% a token."""
    for name in ("x_r", "x_w", "x_k", "x_v", "x_a", "x_g"):
        getattr(mixer, name).uniform_()
    mixer.k_k.fill_(0.85)
    mixer.k_a.fill_(1.0)
    rate = torch.logspace(-3, -1, mixer.head_dim).repeat(mixer.num_heads)
    mixer.w_lora.lora[2].bias.copy_(torch.logit(rate / 0.6065))  # decay = exp(-0.6065 sigmoid(bias))
