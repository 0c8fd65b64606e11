"""Random streams of every kind of recurrence, sizes distinct primes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from writesae.recurrence import Stream

KINDS = ("plain", "scalar", "vector-plain", "vector", "two-sided")
BATCH, TIME, HEADS, KEY, VALUE = 2, 11, 3, 5, 7

Draw = Callable[..., Stream]


def draw_stream(kind: str, time: int = TIME, seed: int = 0, decay: float = 1.0) -> Stream:
    """float64; `decay` scales the log decays (0 forgets nothing, 50 forgets everything at once)."""
    g = torch.Generator().manual_seed(seed)

    def normal(width: int) -> Tensor:
        return torch.randn(BATCH, time, HEADS, width, generator=g, dtype=torch.float64)

    query, key, value = normal(KEY), torch.nn.functional.normalize(normal(KEY), dim=-1), normal(VALUE)
    log_decay = -decay * normal(KEY if kind in ("vector-plain", "vector", "two-sided") else 1).abs()
    gate = normal(1).sigmoid()
    if kind == "scalar":  # Gated DeltaNet
        return Stream(query, key, value, log_decay, erase_read=key, erase_gate=gate * log_decay.exp())
    if kind == "vector":  # Kimi Delta Attention
        return Stream(query, key, value, log_decay, erase_read=log_decay.exp() * key, erase_gate=gate)
    if kind == "two-sided":  # RWKV-7
        read = torch.nn.functional.normalize(normal(KEY), dim=-1)
        return Stream(query, key, value, log_decay, erase_read=read, erase_write=normal(KEY).sigmoid() * read)
    return Stream(query, key, value, log_decay)


@pytest.fixture
def draw() -> Draw:
    return draw_stream


@pytest.fixture(params=KINDS)
def stream(request: pytest.FixtureRequest) -> Stream:
    return draw_stream(request.param)
