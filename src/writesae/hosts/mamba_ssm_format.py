"""Checkpoints of the original Mamba-2 release (`state-spaces/mamba2-*`): a config without `model_type`, one other name.

The config's `ssm_cfg` may override the defaults of that code base, which are repeated here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import Mamba2Config, Mamba2ForCausalLM

from writesae.errors import HostError

TOKENIZER = "EleutherAI/gpt-neox-20b"
"""The tokenizer that these models were trained with; their folders hold none."""
DEFAULTS = {"d_state": 128, "d_conv": 4, "expand": 2, "headdim": 64, "ngroups": 1, "chunk_size": 256}


def is_mamba_ssm(config: Mapping[str, object]) -> bool:
    """Whether a `config.json` is of this format."""
    return "model_type" not in config and "d_model" in config and "n_layer" in config


def convert_config(config: Mapping[str, object], name: str) -> Mamba2Config:
    """The same model as a transformers configuration; raises HostError for models that are not pure Mamba-2."""
    ssm = cast(Mapping[str, object], config.get("ssm_cfg") or {})
    if ssm.get("layer", "Mamba1") != "Mamba2":
        raise HostError(f"{name} is a {ssm.get('layer', 'Mamba1')} model, which has no matrix state; Mamba2 has")
    if config.get("attn_layer_idx"):
        raise HostError(f"{name} has attention layers, which transformers' Mamba2 has not; use a pure Mamba-2 model")
    size = DEFAULTS | {key: cast(int, value) for key, value in ssm.items() if key in DEFAULTS}
    unknown = set(ssm) - set(DEFAULTS) - {"layer"}
    if unknown:
        raise HostError(f"{name} sets {sorted(unknown)} in ssm_cfg, which transformers' Mamba2 cannot express")
    width, multiple = cast(int, config["d_model"]), cast(int, config.get("pad_vocab_size_multiple", 8))
    vocabulary = cast(int, config["vocab_size"])
    return Mamba2Config(
        vocab_size=-(-vocabulary // multiple) * multiple,
        hidden_size=width,
        num_hidden_layers=cast(int, config["n_layer"]),
        state_size=size["d_state"],
        conv_kernel=size["d_conv"],
        expand=size["expand"],
        head_dim=size["headdim"],
        num_heads=size["expand"] * width // size["headdim"],
        n_groups=size["ngroups"],
        chunk_size=size["chunk_size"],
        residual_in_fp32=bool(config.get("residual_in_fp32", True)),
        tie_word_embeddings=bool(config.get("tie_embeddings", True)),
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )


def convert_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """One rename; everything else has the same name and shape."""
    old, new = "backbone.embedding.weight", "backbone.embeddings.weight"
    return {new if name == old else name: value for name, value in weights.items()}


def load_mamba_ssm(config: Mapping[str, object], weights: Path, name: str, dtype: torch.dtype) -> Mamba2ForCausalLM:
    """Build the transformers model; raises HostError where the weights do not fit."""
    model = Mamba2ForCausalLM(convert_config(config, name))
    if weights.suffix == ".safetensors":
        loaded = load_file(weights)
    else:
        loaded = torch.load(weights, map_location="cpu", weights_only=True)
    missing, unexpected = model.load_state_dict(convert_weights(loaded), strict=False)
    tied = {"lm_head.weight"} if model.config.tie_word_embeddings else set()
    if set(missing) - tied or unexpected:
        raise HostError(f"{name}: weights do not fit (missing {sorted(set(missing) - tied)}, unknown {unexpected})")
    model.tie_weights()
    return cast(Mamba2ForCausalLM, model.to(dtype))  # type: ignore[arg-type]
