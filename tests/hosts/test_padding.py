"""Rows of unequal length in one left-padded batch record what they record alone."""

from __future__ import annotations

import pytest
import torch

from random_hosts import host_parameter, tiny_host
from writesae.hosts.selfcheck import TOLERANCE, relative
from writesae.recurrence import replay

NAMES = ("qwen3_5", "kimi_linear", "mamba2", "falcon_h1", "olmo_hybrid")


@pytest.mark.parametrize("name", [host_parameter(name) for name in NAMES])
def test_each_row_is_as_if_alone(name: str) -> None:
    host = tiny_host(name)
    g = torch.Generator().manual_seed(0)
    lengths = torch.tensor([13, 1, 7])
    mask = (torch.arange(13) >= 13 - lengths[:, None]).long()
    tokens = torch.randint(3, 101, mask.shape, generator=g) * mask
    together = host.record(tokens, list(host.layers), attention_mask=mask)
    for row, length in enumerate(lengths.tolist()):
        alone = host.record(tokens[row : row + 1, 13 - length :], list(host.layers))
        for layer, stream in together.items():
            own = stream.map(lambda x, row=row, start=13 - length: x[row : row + 1, start:])  # type: ignore[misc]
            assert own.key.shape == alone[layer].key.shape
            ours, theirs = replay(own), replay(alone[layer])
            assert relative(ours.outputs, theirs.outputs) <= TOLERANCE
            assert relative(ours.final, theirs.final) <= TOLERANCE
