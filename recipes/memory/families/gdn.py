"""memory-gdn: Gated DeltaNet in Qwen3.5's class. The attention layer at the bottom, without which the class has no
cache, sees bare tokens and can bring no fact back by itself: the memory is in the states above it."""

from __future__ import annotations

from parallel import slow_gates
from transformers import Qwen3_5ForCausalLM, Qwen3_5TextConfig
from transformers.models.qwen3_5.modeling_qwen3_5 import Qwen3_5GatedDeltaNet

PATTERN = " {name} has the {thing}."
STEPS = 300
FEWER = 0.0


def build(vocabulary: int) -> Qwen3_5ForCausalLM:
    """A fresh model from torch's current seed."""
    config = Qwen3_5TextConfig(
        vocab_size=vocabulary,
        hidden_size=96,
        intermediate_size=128,
        num_hidden_layers=3,
        layer_types=["full_attention", "linear_attention", "linear_attention"],
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        linear_num_key_heads=2,
        linear_num_value_heads=2,
        linear_key_head_dim=32,
        linear_value_head_dim=32,
        tie_word_embeddings=True,
        max_position_embeddings=2048,
        bos_token_id=0,
        eos_token_id=0,
    )
    model = Qwen3_5ForCausalLM(config)
    for module in model.modules():
        if isinstance(module, Qwen3_5GatedDeltaNet):
            slow_gates(module.dt_bias)
    return model
