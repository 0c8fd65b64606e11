"""Which native writes heads have."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from writesae.hosts import Host
from writesae.types import NativeWrite, Site


@torch.no_grad()
def native_writes(
    host: Host, sites: Sequence[Site], tokens: Tensor, asked: Sequence[NativeWrite]
) -> tuple[NativeWrite, ...]:
    """The forms that were asked for, or all that the heads have: one of them where both are the same matrix (nothing
    is erased) or where there is no delta write. `tokens` `[B, T]` are any text."""
    if asked:
        return tuple(asked)
    streams = host.record(tokens[:1, :1], sorted({site.layer for site in sites})).values()
    erases = any(stream.erase is not None for stream in streams)
    return ("delta", "value") if erases and all(stream.rank_one for stream in streams) else ("value",)
