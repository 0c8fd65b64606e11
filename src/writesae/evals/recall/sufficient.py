"""What brings a fact back where its write was: atoms, by reading and amplitude, and what they are compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from writesae.causal.seen import Seen
from writesae.errors import InputError
from writesae.evals.common.conditions import Size
from writesae.sae import SAE
from writesae.types import NativeWrite, ReadAs

Choice = Literal["state", "increment", "write", "cosine"]
"""Which atom stands for a write: the one of the largest coefficient as the dictionary reads the token (`state`, or
`write` for a dictionary of writes), the one that the write raises most, or the one that is nearest to the write, which
no reading can beat."""


@dataclass(frozen=True, eq=False)
class AtomInstead:
    """One atom in the place of the native write."""

    sae: SAE
    choice: Choice = "increment"
    amount: Size = "coefficient"
    """There is no coefficient for the nearest one."""
    native_write: NativeWrite = "delta"
    rank_one: bool = False
    """Whether an atom of a flat dictionary is cut to its largest singular pair."""

    def __post_init__(self) -> None:
        if self.choice == "cosine" and self.amount == "coefficient":
            raise InputError("the nearest atom was not read, so it has no coefficient: give projection or norm")

    def matrix(self, seen: Seen, place: Tensor) -> Tensor:
        """`amount * atom - write`, `[B, K, V]`."""
        sae, write = self.sae, seen.write(self.native_write)
        if self.choice == "cosine":
            atoms = sae.atom_matrices().detach().to(write).flatten(1)
            score = (
                write.flatten(1) @ normalize(atoms, dim=1).T
            )  # signed: an atom is written as it is, not turned round
        else:
            score = seen.amounts(sae, self.choice, self.native_write).to(write)
        best = score.argmax(-1, keepdim=True)
        atom = sae.atom_matrices(best[:, 0]).detach().to(write)
        if self.rank_one:
            u, s, vh = torch.linalg.svd(atom)
            atom = s[:, :1, None] * u[:, :, :1] * vh[:, :1]
        squared = atom.square().sum((1, 2))
        sizes = {
            "coefficient": score.gather(1, best)[:, 0],
            "norm": seen.write_norm(self.native_write) / squared.sqrt(),
            "projection": (write * atom).sum((1, 2)) / squared,
        }
        return sizes[self.amount][:, None, None] * atom - write


@dataclass(frozen=True, eq=False)
class AllInstead:
    """All active features in the place of the native write, each at its coefficient: as many as are active, and by
    increment those that the write raises most."""

    sae: SAE
    choice: ReadAs = "increment"
    native_write: NativeWrite = "delta"

    def matrix(self, seen: Seen, place: Tensor) -> Tensor:
        """`sum_i a_i atom_i - write`, `[B, K, V]`."""
        sae, write = self.sae, seen.write(self.native_write)
        feature, amount = seen.read(sae, self.choice, self.native_write)
        atoms = sae.atom_matrices(feature.flatten()).detach().to(write).view(*feature.shape, *write.shape[1:])
        return torch.einsum("bj,bjkv->bkv", amount.to(write), atoms) - write


@dataclass(frozen=True, eq=False)
class RandomInstead:
    """A random rank-1 matrix of the write's Frobenius norm in its place, drawn by row and place of the passage."""

    seed: int | tuple[int, ...] = 0
    native_write: NativeWrite = "delta"

    def matrix(self, seen: Seen, place: Tensor) -> Tensor:
        """`|write| x y^T - write` with unit x and y, `[B, K, V]`."""
        write, rows = seen.write(self.native_write), zip(seen.row.tolist(), seen.position.tolist(), strict=True)
        drawn = [
            np.random.default_rng((*np.atleast_1d(self.seed), row, at)).normal(size=sum(write.shape[1:]))
            for row, at in rows
        ]
        noise = torch.from_numpy(np.stack(drawn)).to(write)
        key, value = (x / x.norm(dim=1, keepdim=True) for x in torch.split(noise, list(write.shape[1:]), 1))
        instead: Tensor = seen.write_norm(self.native_write)[:, None, None] * key[:, :, None] * value[:, None, :]
        return instead - write
