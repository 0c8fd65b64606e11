"""A tiny random-weight model of every supported class: what the conformance suite runs.

Key and value sides differ wherever a class allows it, so that a transposed state cannot go unnoticed, and the
decays are drawn slow (0.8 to 0.98 a token), so that a state remembers the whole test sequence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.util import find_spec
from types import MappingProxyType
from typing import cast

import torch
from torch import nn
from transformers import PreTrainedModel

from writesae.errors import InputError
from writesae.hosts.versions import release

VOCABULARY = 101
Settings = dict[str, object]


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
    rates: tuple[float, float] = (0.02, 0.2)
    """Range of the decay rates `exp(A_log)`."""
    bias: tuple[float, float] = (-1.0, 1.0)
    """Range of `dt_bias`."""
    mixer: str | None = None
    """The layer of fla that takes the place of the model's own, for one that no model of fla has."""


_COMMON: Settings = {
    "vocab_size": VOCABULARY,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "initializer_range": 0.2,
}
_ATTENTION: Settings = {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 256}
_LINEAR_FULL = ["linear_attention", "linear_attention", "full_attention"]
_QWEN: Settings = (
    _COMMON
    | _ATTENTION
    | {
        "hidden_size": 32,
        "intermediate_size": 22,
        "num_hidden_layers": 3,
        "head_dim": 16,
        "layer_types": _LINEAR_FULL,
        "linear_num_key_heads": 3,
        "linear_num_value_heads": 6,
        "linear_key_head_dim": 5,
        "linear_value_head_dim": 7,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5},
    }
)
_INDEXED: Settings = {
    "hc_count": 3,
    "hc_lowrank": 5,
    "indexer_n_heads": 2,
    "indexer_kv_heads": 1,
    "indexer_head_dim": 16,
    "indexer_budget": 8,
    "indexer_compress_ratio": 2,
}
_EXPERTS: Settings = {
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
    "num_experts": 4,
    "num_experts_per_tok": 2,
}
_VISION: Settings = {
    "depth": 1,
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_heads": 2,
    "out_hidden_size": 32,
    "patch_size": 4,
}
_KDA: Settings = {
    "hidden_size": 32,
    "intermediate_size": 22,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "num_key_value_heads": 3,
    "linear_num_heads": 3,
    "linear_head_dim": 7,
    "head_dim": 7,
    "kv_lora_rank": 6,
    "q_lora_rank": None,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 6,
    "v_head_dim": 8,
    "moe_intermediate_size": 16,
    "num_experts_per_tok": 2,
    "num_local_experts": 4,
    "n_group": 1,
    "topk_group": 1,
    "mlp_layer_types": ["dense", "sparse", "sparse"],
    "layer_types": _LINEAR_FULL,
    "max_position_embeddings": 256,
}
_GLM: Settings = {
    "q_lora_rank": 6,
    "qk_rope_head_dim": 0,
    "n_routed_experts": 4,
    "layer_types": ["linear_attention", "linear_attention", "indexed_attention"],
    "hc_mult": 3,
    "index_topk": 64,
    "index_kpool": 2,
    "index_head_dim": 6,
    "index_n_heads": 2,
    "hidden_act": "silu",
}
_GLM_VISION: Settings = {
    "depth": 1,
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_heads": 2,
    "out_hidden_size": 32,
    "projection_intermediate_size": 8,
    "patch_size": 4,
}
_MAMBA2: Settings = {
    "hidden_size": 21,
    "num_hidden_layers": 2,
    "num_heads": 6,
    "head_dim": 7,
    "n_groups": 2,
    "state_size": 5,
    "chunk_size": 11,
}
_MAMBA1: Settings = {
    "hidden_size": 7,
    "num_hidden_layers": 2,
    "state_size": 5,
    "expand": 2,
    "time_step_rank": 3,
    "time_step_min": 0.5,
    "time_step_max": 1.5,
}
_MAMBA: Settings = {
    "hidden_size": 32,
    "intermediate_size": 22,
    "num_hidden_layers": 3,
    "mamba_n_heads": 8,
    "mamba_d_head": 8,
    "mamba_d_ssm": 64,
    "mamba_n_groups": 2,
    "mamba_d_state": 5,
    "mamba_expand": 2,
    "mamba_chunk_size": 11,
}
_FALCON: Settings = {
    "ssm_out_multiplier": 0.7,
    "lm_head_multiplier": 0.4,
    "ssm_multipliers": [0.9, 1.1, 0.8, 1.2, 0.7],
    "embedding_multiplier": 1.5,
}
_NEMOTRON: Settings = {
    "hidden_size": 32,
    "intermediate_size": 22,
    "head_dim": 16,
    "layers_block_type": ["linear_attention", "mlp", "linear_attention", "full_attention"],
    "mamba_num_heads": 6,
    "mamba_head_dim": 7,
    "n_groups": 2,
    "ssm_state_size": 5,
    "chunk_size": 11,
}
_GRANITE: Settings = {
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "shared_intermediate_size": 16,
    "layer_types": _LINEAR_FULL,
    "intermediate_size": 24,
    "logits_scaling": 3.0,
    "residual_multiplier": 0.5,
    "embedding_multiplier": 2.0,
}
_ZAMBA: Settings = {
    "hidden_size": 32,
    "intermediate_size": 22,
    "num_hidden_layers": 3,
    "layers_block_type": ["linear_attention", "hybrid", "linear_attention"],
    "mamba_d_state": 5,
    "mamba_expand": 2,
    "mamba_ngroups": 2,
    "n_mamba_heads": 8,
    "chunk_size": 11,
}


_RWKV7: Settings = {
    "hidden_size": 21,
    "num_hidden_layers": 2,
    "head_dim": 7,
    "num_heads": 3,
    "intermediate_size": 22,
    "decay_low_rank_dim": 5,
    "gate_low_rank_dim": 5,
    "a_low_rank_dim": 5,
    "v_low_rank_dim": 5,
}


def _transformers(name: str, prefix: str, settings: Mapping[str, object], config: str = "") -> TinyModel:
    return TinyModel(
        f"transformers.models.{name}",
        config or f"{prefix}Config",
        f"{prefix}ForCausalLM",
        MappingProxyType(dict(settings)),
    )


_HEADS: Settings = {"num_heads": 4}
_GROUPED: Settings = {"num_heads": 2, "head_dim": 6, "num_v_heads": 4}
_PRODUCT: Settings = {"num_heads": 4, "head_dim": 6, "expand_v": 1.5, "use_forget_gate": True}
_HGRN2: Settings = {"hidden_size": 35, "expand_ratio": 6, "use_short_conv": True, "use_lower_bound": False}
_FLA: Settings = {"hidden_size": 32, "intermediate_size": 22, "num_hidden_layers": 2}


def _fla(name: str, prefix: str, settings: Settings) -> TinyModel:
    whole = MappingProxyType(_COMMON | _FLA | settings)
    return TinyModel(f"fla.models.{name}", f"{prefix}Config", f"{prefix}ForCausalLM", whole, extra="fla")


TINY_MODELS: Mapping[str, TinyModel] = MappingProxyType(
    {
        "qwen3_5": _transformers("qwen3_5", "Qwen3_5", _QWEN, "Qwen3_5TextConfig"),
        "qwen3_5_linear": _transformers(
            "qwen3_5",
            "Qwen3_5",
            _QWEN | {"num_hidden_layers": 2, "layer_types": ["linear_attention"] * 2},
            "Qwen3_5TextConfig",
        ),
        "qwen3_5_moe": _transformers("qwen3_5_moe", "Qwen3_5Moe", _QWEN | _EXPERTS, "Qwen3_5MoeTextConfig"),
        "qwen3_next": _transformers("qwen3_next", "Qwen3Next", _QWEN | _EXPERTS),
        "qwen3_5_vision": TinyModel(
            "transformers.models.qwen3_5",
            "Qwen3_5Config",
            "Qwen3_5ForConditionalGeneration",
            {"text_config": _QWEN, "vision_config": _VISION},
        ),
        "qwen4_exp": _transformers("qwen4_exp", "Qwen4Exp", _QWEN | _EXPERTS | _INDEXED, "Qwen4ExpTextConfig"),
        "glm5_next": TinyModel(
            "transformers.models.glm5_next",
            "Glm5NextConfig",
            "Glm5NextForConditionalGeneration",
            {"text_config": _COMMON | _KDA | _GLM, "vision_config": _GLM_VISION},
            rates=(1.5, 2.5),
            bias=(-2.5, -1.5),
        ),
        "olmo_hybrid": _transformers("olmo_hybrid", "OlmoHybrid", _QWEN | {"linear_num_key_heads": 6}),
        "kimi_linear": _transformers("kimi_linear", "KimiLinear", _COMMON | _KDA),
        "bailing_hybrid": replace(
            _transformers("bailing_hybrid", "BailingHybrid", _COMMON | _KDA), rates=(1.5, 2.5), bias=(-2.5, -1.5)
        ),
        "mamba2": _transformers("mamba2", "Mamba2", _COMMON | _MAMBA2),
        "bamba": _transformers("bamba", "Bamba", _COMMON | _ATTENTION | _MAMBA | {"attn_layer_indices": [2]}),
        "falcon_h1": _transformers("falcon_h1", "FalconH1", _COMMON | _ATTENTION | _MAMBA | _FALCON),
        "falcon_h1_norm": _transformers(
            "falcon_h1", "FalconH1", _COMMON | _ATTENTION | _MAMBA | _FALCON | {"mamba_rms_norm": True}
        ),
        "nemotron_h": _transformers("nemotron_h", "NemotronH", _COMMON | _ATTENTION | _NEMOTRON),
        "granitemoehybrid": _transformers(
            "granitemoehybrid", "GraniteMoeHybrid", _COMMON | _ATTENTION | _MAMBA | _GRANITE
        ),
        "zamba2": _transformers("zamba2", "Zamba2", _COMMON | _ATTENTION | _ZAMBA),
        "rwkv7_hf": TinyModel("rwkv7_hf", "RWKV7Config", "RWKV7ForCausalLM", _COMMON | _RWKV7, extra="rwkv7"),
        "fla_delta_net": _fla("delta_net", "DeltaNet", _HEADS | {"expand_k": 0.5}),
        "fla_gated_deltanet": _fla("gated_deltanet", "GatedDeltaNet", _GROUPED),
        "fla_gla": _fla("gla", "GLA", _HEADS),
        "fla_kda": _fla("kda", "KDA", _GROUPED | {"expand_v": 1.5}),
        "fla_rwkv7": _fla("rwkv7", "RWKV7", _RWKV7 | {"hidden_size": 28}),
        "fla_comba": _fla("comba", "Comba", _GROUPED | {"expand_v": 1.5}),
        "fla_gdn2": replace(_fla("gla", "GLA", _HEADS), mixer="GatedDeltaNet2"),
        "fla_gated_deltaproduct": _fla("gated_deltaproduct", "GatedDeltaProduct", _PRODUCT),
        "fla_simple_gla": replace(_fla("gla", "GLA", _HEADS), mixer="SimpleGatedLinearAttention"),
        "fla_retnet": _fla("retnet", "RetNet", {"num_heads": 4, "expand_k": 0.5}),
        "fla_hgrn2": _fla("hgrn2", "HGRN2", _HGRN2),
    }
)

AUDITED_MODELS: Mapping[str, TinyModel] = MappingProxyType(
    {
        "mamba1": _transformers("mamba", "Mamba", _COMMON | _MAMBA1),
        "mamba1_released": _transformers("mamba", "Mamba", _COMMON | _MAMBA1 | {"time_step_rank": "auto"}),
        "falcon_mamba": _transformers("falcon_mamba", "FalconMamba", _COMMON | _MAMBA1),
    }
)
"""Those whose heads can be audited, and nothing else."""

_PIECES: Settings = {
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}
WRAPPED_MODELS: Mapping[str, TinyModel] = MappingProxyType(
    {
        "minicpm_v": TinyModel(
            "transformers.models.minicpmv4_6",
            "MiniCPMV4_6Config",
            "MiniCPMV4_6ForConditionalGeneration",
            {
                "text_config": {"model_type": "qwen3_5_text"} | _QWEN,
                "vision_config": _PIECES | {"num_hidden_layers": 2},
                "insert_layer_id": 0,
                "image_size": 32,
            },
        ),
        "nemotron_h_omni": TinyModel(
            "transformers.models.nemotron_h_omni",
            "NemotronH_Omni_Reasoning_V3_Config",
            "NemotronH_Omni_Reasoning_V3",
            {
                "text_config": {"model_type": "nemotron_h"} | _COMMON | _ATTENTION | _NEMOTRON,
                "vision_config": {"model_type": "radio", "num_hidden_layers": 1, "video_temporal_patch_size": 2}
                | _PIECES,
                "vision_hidden_size": 8,
                "projector_hidden_size": 8,
            },
        ),
    }
)
"""Those whose text part is taken, which is one of `TINY_MODELS`."""
_EVERY = {**TINY_MODELS, **AUDITED_MODELS, **WRAPPED_MODELS}


def lacking(name: str) -> str | None:
    """Why one of these models cannot be built here; None where it can."""
    spec = _EVERY[name]
    if find_spec(spec.module.partition(".")[0]) is None:
        return f"needs writesae[{spec.extra}]"
    if find_spec(spec.module) is None:
        return f"transformers {'.'.join(map(str, release()))} has no {spec.model}"
    return None


def build_tiny(name: str, seed: int = 0) -> PreTrainedModel:
    """One of these models, freshly drawn, float32, in evaluation mode; raises InputError for another name."""
    if name not in _EVERY:
        raise InputError(f"unknown tiny model {name!r}: one of {', '.join(_EVERY)}")
    spec = _EVERY[name]
    module = import_module(spec.module)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = getattr(module, spec.model)(getattr(module, spec.config)(**spec.settings))
        if spec.mixer is not None:
            _change_mixers(model, spec.mixer)
        _redraw(model, spec)
    return cast(PreTrainedModel, model.eval())


FLA_LAYERS: Mapping[str, tuple[str, Settings]] = {
    "GatedDeltaNet2": ("gdn2", {"head_dim": 6, "num_heads": 2, "num_v_heads": 4, "expand_v": 1.5}),
    "SimpleGatedLinearAttention": ("simple_gla", {"num_heads": 4, "expand_k": 0.5}),
}


def _change_mixers(model: nn.Module, mixer: str) -> None:
    module, sizes = FLA_LAYERS[mixer]
    layer = getattr(import_module(f"fla.layers.{module}"), mixer)
    for index, block in enumerate(model.get_submodule("model.layers").children()):
        block.attn = layer(hidden_size=32, layer_idx=index, **sizes)


@torch.no_grad()
def _redraw(model: nn.Module, spec: TinyModel) -> None:
    """Draw what initialisation leaves useless for tests: decays that forget within a token, skips that drown the
    recurrence (Mamba-2's `D`)."""
    small = ("r_k", "k_k", "k_a", "x_r", "x_w", "x_k", "x_v", "x_a", "x_g")
    ranges = dict.fromkeys(small, (0.2, 1.0)) | {"A_log": spec.rates, "dt_bias": spec.bias, "D": (-0.2, 0.2)}
    for name, parameter in model.named_parameters():
        last = name.rpartition(".")[2]
        if parameter.ndim == 2 and not parameter.any():
            parameter.normal_(0, 0.2)  # some output projections start at zero, which would hide everything before them
        if name.endswith("x_proj.weight"):  # Mamba-1's keys and queries
            parameter.normal_(0, 1)
        if last in ranges:
            drawn = torch.empty_like(parameter).uniform_(*ranges[last])
            parameter.copy_(drawn.log() if last == "A_log" else drawn)
