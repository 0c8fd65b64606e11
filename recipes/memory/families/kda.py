"""memory-kda: Kimi Delta Attention in Kimi-Linear's class, with an attention layer at the bottom as in gdn.py.

It is narrower: its class does not tie embeddings."""

from __future__ import annotations

import torch
from transformers import KimiLinearConfig, KimiLinearForCausalLM

PATTERN = " {name} has the {thing}."
STEPS = 500
FEWER = 0.0


def build(vocabulary: int) -> KimiLinearForCausalLM:
    """A fresh model from torch's current seed."""
    config = KimiLinearConfig(
        vocab_size=vocabulary,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=3,
        layer_types=["full_attention", "linear_attention", "linear_attention"],
        mlp_layer_types=["dense"] * 3,
        num_attention_heads=2,
        num_key_value_heads=2,
        kv_lora_rank=32,
        qk_rope_head_dim=16,
        qk_nope_head_dim=16,
        v_head_dim=32,
        linear_num_heads=2,
        linear_head_dim=32,
        max_position_embeddings=2048,
        pad_token_id=None,
        bos_token_id=0,
        eos_token_id=0,
    )
    model = KimiLinearForCausalLM(config)
    for name, parameter in model.named_parameters():
        if name.endswith("A_log"):  # the class draws rates of 1 to 16, most of which forget within a statement
            torch.nn.init.zeros_(parameter)
    return model
