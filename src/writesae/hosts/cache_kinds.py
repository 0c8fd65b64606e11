"""How each package keeps recurrent states between calls. States cross this border as the package stores them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from torch import Tensor
from transformers import Cache, DynamicCache, PreTrainedModel
from transformers.cache_utils import LinearAttentionLayer


@dataclass(frozen=True)
class CacheKind:
    """One package's cache."""

    new: Callable[[PreTrainedModel], Cache]
    """An empty cache for a model."""
    keyword: Callable[[PreTrainedModel], str]
    """The argument under which the model's forward takes its cache."""
    read: Callable[[Cache, int], Tensor | None]
    """A layer's state: the live tensor, or None before the first call."""
    write: Callable[[Cache, int, Tensor], None]
    """Put a state there; the next call reads it."""


def _transformers_keyword(model: PreTrainedModel) -> str:
    takes = inspect.signature(model.forward).parameters
    return "past_key_values" if "past_key_values" in takes else "cache_params"


def _transformers_read(cache: Cache, layer: int) -> Tensor | None:
    return cast(LinearAttentionLayer, cache.layers[layer]).recurrent_states[0]


def _transformers_write(cache: Cache, layer: int, state: Tensor) -> None:
    cache.update_recurrent_state(state, layer)


TRANSFORMERS = CacheKind(
    new=lambda model: DynamicCache(config=model.config.get_text_config()),
    keyword=_transformers_keyword,
    read=_transformers_read,
    write=_transformers_write,
)
"""One buffer a layer, allocated once and changed in place."""
