"""How each package keeps recurrent states between calls. States cross this border as the package stores them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import cast

from torch import Tensor
from transformers import Cache, PreTrainedModel

from writesae.hosts.internals import new_cache, recurrent_state


@dataclass(frozen=True)
class CacheKind:
    """One package's cache."""

    new: Callable[[PreTrainedModel], Cache]
    """An empty cache for a model."""
    read: Callable[[Cache, int], Tensor | None]
    """A layer's state: the live tensor, or None before the first call."""
    write: Callable[[Cache, int, Tensor], None]
    """Put a state there; the next call reads it."""


def _fla_new(model: PreTrainedModel) -> Cache:
    return cast(Cache, import_module("fla.models.utils").Cache())


def _fla_read(cache: Cache, layer: int) -> Tensor | None:
    if len(cache.layers) <= layer:
        return None
    return cast(Tensor | None, cache.layers[layer].state["recurrent_state"])  # type: ignore[union-attr]


def _fla_write(cache: Cache, layer: int, state: Tensor) -> None:
    """Fresh memory of the kernel's layout: the state handed in may be a transposed view."""
    cache.layers[layer].state["recurrent_state"] = state.contiguous().clone()  # type: ignore[union-attr]


def _rwkv7_new(model: PreTrainedModel) -> Cache:
    """The cache class stands beside the model class, also where both were loaded as remote code."""
    layers = model.config.num_hidden_layers
    cache = cast(Cache, sys.modules[type(model).__module__].RWKV7Cache(num_layers=layers))
    cache.layers = []  # it sets none, and `generate` asks whether they can be compiled
    return cache


def _rwkv7_read(cache: Cache, layer: int) -> Tensor | None:
    return cast(Tensor | None, cache.recurrent_state[layer])  # type: ignore[attr-defined]


def _rwkv7_write(cache: Cache, layer: int, state: Tensor) -> None:
    cache.recurrent_state[layer] = state.clone()  # type: ignore[attr-defined]


def _transformers_write(cache: Cache, layer: int, state: Tensor) -> None:
    cache.update_recurrent_state(state, layer)


TRANSFORMERS = CacheKind(new_cache, recurrent_state, _transformers_write)
"""One buffer a layer, allocated once and changed in place."""

RWKV7_HF = CacheKind(_rwkv7_new, _rwkv7_read, _rwkv7_write)
"""A list with a new tensor a call."""

FLA = CacheKind(_fla_new, _fla_read, _fla_write)
"""A dictionary a layer, with a new tensor a call."""
