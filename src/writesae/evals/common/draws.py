"""Random draws that depend on what they are for alone, not on what is drawn before or beside them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize


def generator_for(*what: object) -> torch.Generator:
    """A random generator that depends on these things alone."""
    digest = hashlib.sha256(repr(what).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def unit_rows(*what: object, passages: Sequence[int], sizes: Sequence[tuple[int, ...]]) -> list[Tensor]:
    """Unit vectors along the last axis, independent normal, of each of these shapes: `[passages, *shape]`."""
    rows = []
    for passage in passages:
        own = generator_for(*what, passage)
        rows.append([normalize(torch.randn(shape, generator=own), dim=-1) for shape in sizes])
    return [torch.stack(of_all) for of_all in zip(*rows, strict=True)]


def ranked_tokens(logits: Tensor, ranks: tuple[int, int], *what: object, passages: Sequence[int]) -> Tensor:
    """One token a row of `[B, vocabulary]` from these ranks (the second excluded), uniformly, `[B]` on the CPU."""
    rank = [int(torch.randint(*ranks, (), generator=generator_for(*what, passage))) for passage in passages]
    order = logits.topk(max(rank) + 1).indices.cpu()
    return order[torch.arange(len(order)), torch.tensor(rank)]
