"""A store in memory with the surface that training asks for, holding writes with a planted dictionary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from writesae.corpus import Fingerprint
from writesae.recurrence.written import Written, native_update
from writesae.types import Site

torch.set_num_threads(1)  # tiny tensors: threads would only get in each other's way


@dataclass(frozen=True)
class Head:
    heads: int
    d_k: int
    d_v: int
    family: str = "planted"
    erase: Literal["none", "key", "own"] = "key"


@dataclass(frozen=True)
class Origin:
    host: str = "planted"
    revision: str = "r0"
    corpus: str = "c0"
    described: str = "planted, train of 0.8"


class MemoryStore:
    """`heads` heads of layer 3, sequences of `length` tokens; each write is one of `planted` rank-1 atoms."""

    def __init__(
        self,
        sequences: int = 29,
        length: int = 53,
        planted: int = 11,
        decays: int = 1,
        seed: int = 0,
        padding: tuple[int, ...] = (),
        own: bool = False,
    ) -> None:
        g = torch.Generator().manual_seed(seed)
        self.heads, self.d_k, self.d_v = 2, 5, 7
        self.layers = {3: Head(self.heads, self.d_k, self.d_v, erase="own" if own else "key")}
        self.padded = np.array([*padding, *[0] * (sequences - len(padding))], np.int64)
        self.sequences, self.length = sequences, length
        self.text = Fingerprint.of(np.random.default_rng(seed).integers(0, 97, (sequences, length)))
        self.hash, self.provenance = f"memory-{seed}-{decays}", Origin()
        self.data: list[Written] = []
        self.erased: list[tuple[Tensor, Tensor]] = []
        for _ in range(self.heads):
            v = torch.nn.functional.normalize(torch.randn(planted, self.d_k, generator=g), dim=1)
            w = torch.nn.functional.normalize(torch.randn(planted, self.d_v, generator=g), dim=1)
            which = torch.randint(planted, (sequences, length), generator=g)
            size = 1 + torch.rand(sequences, length, 1, generator=g)
            decay = (0.3 + 0.5 * torch.rand(sequences, length, decays, generator=g)).log()
            gate = 0.5 * torch.rand(sequences, length, 1, generator=g)
            size *= (torch.arange(length) >= torch.from_numpy(self.padded)[:, None])[..., None]
            self.data.append(Written(v[which], 3 * size * w[which], decay, gate))
            erased = 0.3 * torch.randn(sequences, length, self.d_v, generator=g) * (size > 0)
            self.erased.append((v[torch.randint(planted, (sequences, length), generator=g)], erased))

    def read(self, site: Site, start: int, stop: int) -> Written:
        part = self.data[site.head]
        return Written(part.key[start:stop], part.update[start:stop], part.log_decay[start:stop], None)

    def padding(self) -> NDArray[np.int64]:
        return self.padded

    def pairs(self, site: Site, start: int, stop: int) -> Written:
        """`-e erased^T` after the decay, then `k u^T`."""
        native, (along, erased) = self.read(site, start, stop), self.erased[site.head]
        key = torch.stack([-along[start:stop], native.key], 2).flatten(1, 2)
        update = torch.stack([erased[start:stop], native.update], 2).flatten(1, 2)
        return Written(key, update, torch.stack([native.log_decay, 0 * native.log_decay], 2).flatten(1, 2))

    def keys(self, site: Site, start: int, stop: int) -> Tensor:
        return self.data[site.head].key[start:stop]

    def native(self, site: Site, start: int, stop: int) -> Tensor:
        return native_update(Written(*(x[start:stop] for x in self.data[site.head] if x is not None)))
