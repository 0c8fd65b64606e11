"""Read and write recurrent states in a live transformers cache, in canonical layout."""

from __future__ import annotations

from typing import cast

from torch import Tensor
from transformers import Cache, DynamicCache
from transformers.cache_utils import LinearAttentionLayer

from writesae.hosts.host import Host


def new_cache(host: Host) -> Cache:
    """An empty cache for this host."""
    return DynamicCache(config=host.model.config.get_text_config())


def cache_argument(host: Host, cache: Cache) -> dict[str, object]:
    """The keyword under which the host's forward takes its cache."""
    return {"past_key_values": cache, "use_cache": True}


def read_state(host: Host, cache: Cache, layer: int) -> Tensor:
    """The state of one layer, `[B, H, K, V]`; a view of the live buffer."""
    host.layer(layer)
    return cast(Tensor, cast(LinearAttentionLayer, cache.layers[layer]).recurrent_states[0])


def write_state(host: Host, cache: Cache, layer: int, state: Tensor) -> None:
    """Overwrite one layer's state (`[B, H, K, V]`) in place."""
    read_state(host, cache, layer).copy_(state)
