"""The model that is trained, its parameter groups, and how it is saved."""

from __future__ import annotations

import functools
import inspect
import json
import math
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel, Qwen3_5ForCausalLM, Qwen3_5TextConfig
from transformers.models.qwen3_5 import modeling_qwen3_5 as qwen

CPU_CHUNK = 32
"""Chunk of the torch delta-rule kernel that is quickest on a CPU at these head sizes."""
DECAY_STEPS = (1e-3, 1e-1)
"""Range of the decay gates' step size at the start, as flash-linear-attention draws it: slow and fast memories."""


@dataclass(frozen=True)
class Shape:
    """Size of the model."""

    layers: int = 8
    """Decoder layers; every fourth is attention, the others Gated DeltaNet."""
    hidden: int = 192
    """Width of the residual stream; attention heads are a quarter of it."""
    feed_forward: int = 512
    """Inner width of the feed-forward layers."""
    heads: int = 6
    """Recurrent heads a layer."""
    d_k: int = 32
    """Key width of a recurrent head."""
    d_v: int = 32
    """Value width of a recurrent head."""


def build_model(shape: Shape, vocabulary: int, device: str) -> Qwen3_5ForCausalLM:
    """A fresh float32 model on the device, drawn from torch's current seed."""
    config = Qwen3_5TextConfig(
        vocab_size=vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.feed_forward,
        num_hidden_layers=shape.layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=shape.hidden // 4,
        linear_key_head_dim=shape.d_k,
        linear_value_head_dim=shape.d_v,
        linear_num_key_heads=shape.heads,
        linear_num_value_heads=shape.heads,
        full_attention_interval=4,
        tie_word_embeddings=True,
        max_position_embeddings=2048,
        bos_token_id=0,
        eos_token_id=0,
    )
    model = Qwen3_5ForCausalLM(config).float()
    low, high = (math.log(step) for step in DECAY_STEPS)
    for module in model.modules():
        if isinstance(module, qwen.Qwen3_5GatedDeltaNet):
            step = torch.exp(low + (high - low) * torch.rand_like(module.dt_bias))
            with torch.no_grad():  # softplus(dt_bias) = step
                module.dt_bias.copy_(step + torch.log(-torch.expm1(-step)))
    if device == "cpu":
        # transformers wraps its torch kernel in one that calls fla where that is installed, also on a CPU
        kernel = inspect.unwrap(qwen.torch_chunk_gated_delta_rule)
        qwen.torch_chunk_gated_delta_rule = functools.partial(kernel, chunk_size=CPU_CHUNK)
    return model.to(device).train()


def build_optimisers(model: nn.Module, rate: float, decay: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices between layers, AdamW without decay for embeddings, gates, norms and convolutions."""
    matrices, others = [], []
    for name, parameter in model.named_parameters():
        inner = parameter.ndim == 2 and not any(part in name for part in ("embed", "in_proj_a", "in_proj_b"))
        (matrices if inner else others).append(parameter)
    return [
        torch.optim.Muon(matrices, lr=rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=rate, weight_decay=0.0, betas=(0.9, 0.95)),
    ]


def save_host(model: PreTrainedModel, tokenizer: Path, folder: Path) -> None:
    """bfloat16 safetensors, configuration and tokenizer, as `load` reads them; whole or not at all."""
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    copy = type(model)(model.config).to(torch.bfloat16)
    copy.load_state_dict(model.state_dict())
    copy.save_pretrained(partial)
    shutil.copy(tokenizer, partial / "tokenizer.json")
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def token_bytes(tokenizer: Path) -> torch.Tensor:
    """How many bytes of text each token stands for (none for end-of-text)."""
    vocabulary = json.loads(tokenizer.read_text(encoding="utf-8"))["model"]["vocab"]
    sizes = torch.zeros(len(vocabulary), dtype=torch.int64)
    for text, index in vocabulary.items():  # byte-level: one character of the entry is one byte
        sizes[index] = 0 if text.startswith("<|") and text.endswith("|>") else len(text)
    return sizes
