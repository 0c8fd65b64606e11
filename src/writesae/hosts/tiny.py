"""A tiny random-weight model of every supported class: what the conformance suite runs, and a place to try things.

Key and value sides differ wherever a class allows it, so that a transposed state cannot go unnoticed, and the
decays are drawn slow (0.8 to 0.98 a token), so that a state remembers the whole test sequence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType
from typing import cast

import torch
from torch import nn
from transformers import PreTrainedModel

from writesae.errors import InputError

VOCABULARY = 101


@dataclass(frozen=True)
class TinyModel:
    """How to build one tiny model."""

    module: str
    """Module that holds both classes."""
    config: str
    model: str
    settings: Mapping[str, object]
    """Keyword arguments of the configuration class."""
    extra: str | None = None
    """The optional extra of writesae that installs the package, if it is not a required one."""


_COMMON = {"vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.2}
_ATTENTION = {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 256}
_LINEAR_FULL = ["linear_attention", "linear_attention", "full_attention"]
_QWEN = (
    _COMMON
    | _ATTENTION
    | {
        "hidden_size": 28,
        "intermediate_size": 22,
        "num_hidden_layers": 3,
        "head_dim": 14,
        "layer_types": _LINEAR_FULL,
        "linear_num_key_heads": 3,
        "linear_num_value_heads": 6,
        "linear_key_head_dim": 5,
        "linear_value_head_dim": 7,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5},
    }
)
_EXPERTS = {
    "moe_intermediate_size": 12,
    "shared_expert_intermediate_size": 12,
    "num_experts": 4,
    "num_experts_per_tok": 2,
}
_LATENT_ATTENTION = {
    "kv_lora_rank": 6,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 6,
    "v_head_dim": 8,
    "moe_intermediate_size": 12,
    "num_experts_per_tok": 2,
    "num_local_experts": 4,
    "n_group": 1,
    "topk_group": 1,
    "mlp_layer_types": ["dense", "sparse", "sparse"],
    "layer_types": _LINEAR_FULL,
}
_MAMBA = {
    "mamba_n_heads": 6,
    "mamba_d_head": 7,
    "mamba_n_groups": 2,
    "mamba_d_state": 5,
    "mamba_expand": 2,
    "mamba_chunk_size": 11,
}


def _transformers(name: str, prefix: str, settings: Mapping[str, object], config: str = "") -> TinyModel:
    return TinyModel(
        f"transformers.models.{name}",
        config or f"{prefix}Config",
        f"{prefix}ForCausalLM",
        MappingProxyType(dict(settings)),
    )


TINY_MODELS: Mapping[str, TinyModel] = MappingProxyType(
    {
        "qwen3_5": _transformers("qwen3_5", "Qwen3_5", _QWEN, "Qwen3_5TextConfig"),
        "qwen3_5_moe": _transformers("qwen3_5_moe", "Qwen3_5Moe", _QWEN | _EXPERTS, "Qwen3_5MoeTextConfig"),
        "qwen3_next": _transformers("qwen3_next", "Qwen3Next", _QWEN | _EXPERTS),
    }
)


def build_tiny(name: str, seed: int = 0) -> PreTrainedModel:
    """One of `TINY_MODELS`, freshly drawn, float32, in evaluation mode; raises InputError for another name."""
    if name not in TINY_MODELS:
        raise InputError(f"unknown tiny model {name!r}: one of {', '.join(TINY_MODELS)}")
    spec = TINY_MODELS[name]
    module = import_module(spec.module)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = getattr(module, spec.model)(getattr(module, spec.config)(**spec.settings))
        _slow_decay(model)
    return cast(PreTrainedModel, model.eval())


@torch.no_grad()
def _slow_decay(model: nn.Module) -> None:
    """Redraw the decay rates: the usual initialisation forgets within a token at these widths."""
    for name, parameter in model.named_parameters():
        if name.rpartition(".")[2] == "A_log":
            parameter.copy_(torch.empty_like(parameter).uniform_(0.02, 0.2).log())
