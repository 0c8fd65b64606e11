"""Which native writes heads have."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from writesae.errors import InputError
from writesae.hosts import Host
from writesae.types import NativeWrite, Site


@torch.no_grad()
def native_writes(
    host: Host, sites: Sequence[Site], tokens: Tensor, asked: Sequence[NativeWrite]
) -> tuple[NativeWrite, ...]:
    """The forms that were asked for, or all that the heads have: one of them where both are the same matrix (nothing
    is erased) or where there is no delta write. `tokens` `[B, T]` are any text.

    Raises InputError for the delta write of a head that has none.
    """
    layers = sorted({site.layer for site in sites})
    streams = host.record(tokens[:1], layers)
    pairs = next((site for site in sites if not streams[site.layer].rank_one), None)
    if pairs is not None and "delta" in asked:
        raise InputError(
            f'{pairs} adds two rank-1 matrices a token (RWKV-7), so it has no delta write: use native_writes="value"'
        )
    if asked:
        return tuple(asked)
    erases = any(streams[layer].erase is not None for layer in layers)
    return ("delta", "value") if erases and pairs is None else ("value",)
