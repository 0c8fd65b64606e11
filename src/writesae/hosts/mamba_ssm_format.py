"""Checkpoints of the original Mamba releases (`state-spaces/mamba-*`, `mamba2-*`): no `model_type`, one other name.

The config's `ssm_cfg` may override the defaults of that code base, which are repeated here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import Mamba2Config, Mamba2ForCausalLM, MambaConfig, MambaForCausalLM, PreTrainedModel

from writesae.errors import HostError

TOKENIZER = "EleutherAI/gpt-neox-20b"
"""The tokenizer that these models were trained with; their folders hold none."""
DEFAULTS = {
    "Mamba1": {"d_state": 16, "d_conv": 4, "expand": 2},
    "Mamba2": {"d_state": 128, "d_conv": 4, "expand": 2, "headdim": 64, "ngroups": 1, "chunk_size": 256},
}


def is_mamba_ssm(config: Mapping[str, object]) -> bool:
    """Whether a `config.json` is of this format."""
    return "model_type" not in config and "d_model" in config and "n_layer" in config


def convert_config(config: Mapping[str, object], name: str) -> MambaConfig | Mamba2Config:
    """The same model as a transformers configuration; raises HostError for models that are not pure Mamba."""
    ssm = cast(Mapping[str, object], config.get("ssm_cfg") or {})
    kind = str(ssm.get("layer", "Mamba1"))
    if kind not in DEFAULTS:
        raise HostError(f"{name} is a {kind} model; {' and '.join(DEFAULTS)} are known")
    if config.get("attn_layer_idx"):
        raise HostError(f"{name} has attention layers, which transformers' Mamba has not; use a pure Mamba model")
    size = DEFAULTS[kind] | {key: cast(int, value) for key, value in ssm.items() if key in DEFAULTS[kind]}
    unknown = set(ssm) - set(size) - {"layer"}
    if unknown:
        raise HostError(f"{name} sets {sorted(unknown)} in ssm_cfg, which transformers' Mamba cannot express")
    width, multiple = cast(int, config["d_model"]), cast(int, config.get("pad_vocab_size_multiple", 8))
    vocabulary = cast(int, config["vocab_size"])
    common: dict[str, Any] = {
        "vocab_size": -(-vocabulary // multiple) * multiple,
        "hidden_size": width,
        "num_hidden_layers": config["n_layer"],
        "state_size": size["d_state"],
        "conv_kernel": size["d_conv"],
        "expand": size["expand"],
        "residual_in_fp32": bool(config.get("residual_in_fp32", True)),
        "tie_word_embeddings": bool(config.get("tie_embeddings", True)),
        "bos_token_id": 0,
        "eos_token_id": 0,
        "pad_token_id": 0,
    }
    if kind == "Mamba1":
        return MambaConfig(**common)
    return Mamba2Config(
        head_dim=size["headdim"],
        num_heads=size["expand"] * width // size["headdim"],
        n_groups=size["ngroups"],
        chunk_size=size["chunk_size"],
        **common,
    )


def convert_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """One rename; everything else has the same name and shape."""
    old, new = "backbone.embedding.weight", "backbone.embeddings.weight"
    return {new if name == old else name: value for name, value in weights.items()}


def load_mamba_ssm(config: Mapping[str, object], weights: Path, name: str, dtype: torch.dtype) -> PreTrainedModel:
    """Build the transformers model; raises HostError where the weights do not fit."""
    converted = convert_config(config, name)
    model = Mamba2ForCausalLM(converted) if isinstance(converted, Mamba2Config) else MambaForCausalLM(converted)
    if weights.suffix == ".safetensors":
        loaded = load_file(weights)
    else:
        loaded = torch.load(weights, map_location="cpu", weights_only=True)
    missing, unexpected = model.load_state_dict(convert_weights(loaded), strict=False)
    tied = {"lm_head.weight"} if model.config.tie_word_embeddings else set()
    if set(missing) - tied or unexpected:
        raise HostError(f"{name}: weights do not fit (missing {sorted(set(missing) - tied)}, unknown {unexpected})")
    model.tie_weights()
    return cast(PreTrainedModel, nn.Module.to(model, dtype))
