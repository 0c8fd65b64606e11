"""What brings a fact back where its write was: atoms, by reading and amplitude, and what they are compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from writesae.causal.seen import Seen
from writesae.errors import InputError
from writesae.sae import SAE
from writesae.types import NativeWrite

Choice = Literal["state", "increment", "cosine"]
"""Which atom stands for a write: the one of the largest coefficient as the dictionary reads the token, the one that
the write raises most, or the one that is nearest to the write, which no reading can beat."""
Amount = Literal["coefficient", "norm", "projection"]
"""How large it is written: at its coefficient (for `cosine` there is none), at the write's Frobenius norm, or at its
least-squares coefficient on the write."""


@dataclass(frozen=True, eq=False)
class AtomInstead:
    """One atom in the place of the native write."""

    sae: SAE
    choice: Choice = "increment"
    amount: Amount = "coefficient"
    native_write: NativeWrite = "delta"

    def __post_init__(self) -> None:
        if self.choice == "cosine" and self.amount == "coefficient":
            raise InputError("the nearest atom was not read, so it has no coefficient: give projection or norm")

    def matrix(self, seen: Seen, place: Tensor) -> Tensor:
        """`amount * atom - write`, `[B, K, V]`."""
        sae, write = self.sae, seen.write(self.native_write)
        atoms = sae.atom_matrices().detach().to(write)  # [N, K, V]
        on_write = torch.einsum("nkv,bkv->bn", atoms, write)
        squared = atoms.flatten(1).square().sum(1)
        if self.choice == "cosine":
            score = (on_write / squared.sqrt()).abs()
        elif self.choice == "increment" and sae.config.target == "state":
            score = sae.increments(seen.key, seen.side(self.native_write)).to(write)
        else:
            score = seen.codes(sae).dense(sae.config.features).to(write)
        best = score.argmax(-1)

        def of_best(x: Tensor) -> Tensor:
            return x.gather(1, best[:, None])[:, 0]

        sizes = {
            "coefficient": of_best(score),
            "norm": seen.write_norm(self.native_write) / squared[best].sqrt(),
            "projection": of_best(on_write / squared),
        }
        return sizes[self.amount][:, None, None] * atoms[best] - write

    def __str__(self) -> str:
        return f"replace the native write ({self.native_write}) by the atom of {self.choice} at its {self.amount}"


@dataclass(frozen=True, eq=False)
class RandomInstead:
    """A random rank-1 matrix of the write's Frobenius norm in its place, drawn by row and place of the passage."""

    seed: int = 0
    native_write: NativeWrite = "delta"

    def matrix(self, seen: Seen, place: Tensor) -> Tensor:
        """`|write| x y^T - write` with unit x and y, `[B, K, V]`."""
        write, rows = seen.write(self.native_write), zip(seen.row.tolist(), seen.position.tolist(), strict=True)
        drawn = [np.random.default_rng((self.seed, row, at)).normal(size=sum(write.shape[1:])) for row, at in rows]
        noise = torch.from_numpy(np.stack(drawn)).to(write)
        key, value = (x / x.norm(dim=1, keepdim=True) for x in torch.split(noise, list(write.shape[1:]), 1))
        instead: Tensor = seen.write_norm(self.native_write)[:, None, None] * key[:, :, None] * value[:, None, :]
        return instead - write

    def __str__(self) -> str:
        return f"replace the native write ({self.native_write}) by a random matrix of its norm"


def comes_back(deleted: pd.DataFrame, replaced: pd.DataFrame) -> pd.Series[float]:
    """How much of each fact a replacement brings back: 1 for all that the deletion cost, 0 for nothing, negative where
    it is worse than nothing. NaN where the deletion cost nothing. Both tables are `located.costs` of the same facts."""
    cost = deleted.lost.where(deleted.lost > 0)
    return 1 - replaced.lost / cost
