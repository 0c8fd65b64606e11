"""A store in memory with the surface that training asks for, holding writes with a planted dictionary."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from writesae.recurrence.written import Written, native_update
from writesae.types import Site

torch.set_num_threads(1)  # tiny tensors: threads would only get in each other's way


@dataclass(frozen=True)
class Head:
    heads: int
    d_k: int
    d_v: int


@dataclass(frozen=True)
class Origin:
    host: str = "planted"
    revision: str = "r0"
    corpus: str = "c0"


class MemoryStore:
    """`heads` heads of layer 3, sequences of `length` tokens; each write is one of `planted` rank-1 atoms."""

    def __init__(
        self, sequences: int = 29, length: int = 53, planted: int = 11, decays: int = 1, seed: int = 0
    ) -> None:
        g = torch.Generator().manual_seed(seed)
        self.heads, self.d_k, self.d_v = 2, 5, 7
        self.layers = {3: Head(self.heads, self.d_k, self.d_v)}
        self.sequences, self.length = sequences, length
        self.hash, self.provenance = f"memory-{seed}-{decays}", Origin()
        self.data = []
        for _ in range(self.heads):
            v = torch.nn.functional.normalize(torch.randn(planted, self.d_k, generator=g), dim=1)
            w = torch.nn.functional.normalize(torch.randn(planted, self.d_v, generator=g), dim=1)
            which = torch.randint(planted, (sequences, length), generator=g)
            size = 1 + torch.rand(sequences, length, 1, generator=g)
            decay = (0.3 + 0.5 * torch.rand(sequences, length, decays, generator=g)).log()
            gate = 0.5 * torch.rand(sequences, length, 1, generator=g)
            self.data.append(Written(v[which], 3 * size * w[which], decay, gate))

    def read(self, site: Site, start: int, stop: int) -> Written:
        part = self.data[site.head]
        return Written(part.key[start:stop], part.update[start:stop], part.log_decay[start:stop], None)

    def keys(self, site: Site, start: int, stop: int) -> Tensor:
        return self.data[site.head].key[start:stop]

    def native(self, site: Site, start: int, stop: int) -> Tensor:
        return native_update(Written(*(x[start:stop] for x in self.data[site.head] if x is not None)))
