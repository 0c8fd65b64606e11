"""The language model inside a model of several kinds of input, where it stands by itself in transformers.

`AutoModelForCausalLM` loads the text part of some such checkpoints (Qwen3.5's) and refuses others (MiniCPM-V,
Nemotron-H Omni). Of those the text part is loaded, without the rest, or taken out of a model that is in memory.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    PreTrainedConfig,
    PreTrainedModel,
)

PREFIX = r"^(model\.)?language_model\."
"""What the names of its tensors begin with in the whole checkpoint."""


def _text_class(config: PreTrainedConfig) -> type[PreTrainedModel] | None:
    """The class of the text part; None where the whole is a language model, or the part is none."""
    if type(config) in MODEL_FOR_CAUSAL_LM_MAPPING:
        return None
    return cast(type[PreTrainedModel] | None, MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config.get_text_config()), None))


def text_loader(config: PreTrainedConfig) -> tuple[type[AutoModelForCausalLM], dict[str, Any]]:
    """What loads a checkpoint of this configuration, and arguments that it takes beside the usual ones."""
    if _text_class(config) is not None:
        return AutoModelForCausalLM, {"config": config.get_text_config(), "key_mapping": {PREFIX: ""}}
    alone = type(config) in MODEL_FOR_CAUSAL_LM_MAPPING or type(config) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
    return cast(type[AutoModelForCausalLM], AutoModelForCausalLM if alone else AutoModelForImageTextToText), {}


def text_part(model: PreTrainedModel) -> PreTrainedModel:
    """The text part of a model in memory, sharing its modules; the model itself where that is one."""
    kind = _text_class(model.config)
    if kind is None or isinstance(model, kind):
        return model
    inside = next((child for child in model.children() if isinstance(child, kind)), None)
    if inside is not None:
        return inside
    with torch.device("meta"):
        part = kind(model.config.get_text_config())
    base = part.base_model_prefix
    found = next(module for module in model.modules() if type(module) is type(getattr(part, base)))
    setattr(part, base, found)
    part.set_output_embeddings(cast(nn.Module, model.get_output_embeddings()))  # type: ignore[no-untyped-call]
    part.generation_config = model.generation_config
    return cast(PreTrainedModel, part.train(model.training))
