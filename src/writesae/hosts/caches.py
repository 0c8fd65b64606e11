"""Read and write recurrent states in a live cache, in canonical layout, whatever package the cache comes from."""

from __future__ import annotations

import inspect
from typing import cast

import torch
from torch import Tensor
from transformers import Cache

from writesae.errors import HostError, InputError
from writesae.hosts.finite import check_finite
from writesae.hosts.host import Host
from writesae.hosts.internals import cache_keyword, generates


def new_cache(host: Host) -> Cache:
    """An empty cache for this host."""
    return host.cache_kind.new(host.model)


def cache_argument(host: Host, cache: Cache) -> dict[str, object]:
    """The keyword under which the host's forward takes its cache."""
    return {cache_keyword(host.model): cache, "use_cache": True}


def generation_argument(host: Host, cache: Cache) -> dict[str, object]:
    """The same for `generate`; raises HostError where this release cannot run the host's."""
    if not generates(host.model):
        raise HostError(
            f"{host.name}: {type(host.model).__name__} cannot generate with transformers 5.24 or newer, which give it "
            "its cache under a name that it does not know: pip install 'transformers<5.24'"
        )
    return cache_argument(host, cache)


@torch.no_grad()
def run_cached(host: Host, tokens: Tensor, cache: Cache, start: int, keep: int = 0) -> Tensor:
    """Run tokens `[B, T]` that follow the `start` tokens already in the cache, inside whatever tap is open.

    Returns the logits of the last `keep` positions (0: all). Positions are given to the model, because not every
    class counts them from its cache.
    """
    if start and tokens.shape[1] > 1 and next(iter(host.layers.values())).architecture.token_by_token:
        steps = [run_cached(host, one[:, None], cache, start + i) for i, one in enumerate(tokens.unbind(1))]
        return torch.cat(steps, 1)[:, -keep:]
    given = cache_argument(host, cache)
    if "position_ids" in inspect.signature(host.model.forward).parameters:
        positions = torch.arange(start, start + tokens.shape[1], device=host.device)
        given["position_ids"] = positions.expand(len(tokens), -1)
    out = host.model(input_ids=tokens.to(host.device), logits_to_keep=keep, **given)
    check_finite(host, logits := cast(Tensor, out.logits), tokens)
    return logits


def read_state(host: Host, cache: Cache, layer: int) -> Tensor:
    """The state of one layer, `[B, H, K, V]`: a view of what the next call reads.

    Raises InputError before the first call, when there is no state yet.
    """
    value_first = host.layer(layer).architecture.value_first
    state = host.cache_kind.read(cache, layer)
    if state is None:
        raise InputError(f"layer {layer} has no state yet: run at least one token through this cache first")
    return state.mT if value_first else state


def write_state(host: Host, cache: Cache, layer: int, state: Tensor) -> None:
    """Overwrite one layer's state (`[B, H, K, V]`); the next call reads it. Raises InputError as `read_state` does."""
    now = read_state(host, cache, layer)
    if now.shape != state.shape:
        raise InputError(f"layer {layer}'s state is {tuple(now.shape)} (B, H, K, V), not {tuple(state.shape)}")
    host.cache_kind.write(cache, layer, state.mT if host.layer(layer).architecture.value_first else state)
