"""A store that is nowhere on disk, of writes with a planted dictionary."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from writesae.corpus import Fingerprint
from writesae.disk import place
from writesae.recurrence.written import Written, native_update
from writesae.store import Provenance, StoredLayer, StreamStore
from writesae.types import Site

torch.set_num_threads(1)  # tiny tensors: threads would only get in each other's way


class MemoryStore(StreamStore):
    """2 heads of 5 x 7 in layer 3, sequences of `length` tokens; each write is one of `planted` rank-1 atoms."""

    data: list[Written]
    """By head."""
    erased: list[tuple[Tensor, Tensor]]
    """By head, along what is erased and what."""
    padded: NDArray[np.int64]

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
        heads, d_k, d_v = 2, 5, 7
        layer = StoredLayer(heads, d_k, d_v, "planted", vector_decay=decays > 1, erase="own" if own else "key")
        origin = Provenance(
            "writesae-streams", 2, "planted", "r0", "float32", None, "c0", sequences, length, (3,), "float32", 1, {},
            "planted", "train of 0.8",
        )  # fmt: skip
        super().__init__(place("memory"), origin, {3: layer}, f"memory-{seed}-{decays}", 0, {})
        text = Fingerprint.of(np.random.default_rng(seed).integers(0, 97, (sequences, length)))
        padded = np.array([*padding, *[0] * (sequences - len(padding))], np.int64)
        self.__dict__.update(text=text, padded=padded, data=[], erased=[])
        for _ in range(heads):
            v = torch.nn.functional.normalize(torch.randn(planted, d_k, generator=g), dim=1)
            w = torch.nn.functional.normalize(torch.randn(planted, d_v, generator=g), dim=1)
            which = torch.randint(planted, (sequences, length), generator=g)
            size = 1 + torch.rand(sequences, length, 1, generator=g)
            decay = (0.3 + 0.5 * torch.rand(sequences, length, decays, generator=g)).log()
            gate = 0.5 * torch.rand(sequences, length, 1, generator=g)
            size *= (torch.arange(length) >= torch.from_numpy(self.padded)[:, None])[..., None]
            self.data.append(Written(v[which], 3 * size * w[which], decay, gate))
            erased = 0.3 * torch.randn(sequences, length, d_v, generator=g) * (size > 0)
            self.erased.append((v[torch.randint(planted, (sequences, length), generator=g)], erased))

    def read(self, site: Site, start: int, stop: int) -> Written:
        part = self.data[site.head]
        return Written(part.key[start:stop], part.update[start:stop], part.log_decay[start:stop], None)

    def padding(self, rows: slice = slice(None)) -> NDArray[np.int64]:
        return self.padded[rows]

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
