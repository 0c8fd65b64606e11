"""What can be put in the place of a native write besides the atom: the baselines of the substitution test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize as _normalize

from writesae.errors import InputError
from writesae.evals.writes import HeadWrites, NativeWrite
from writesae.sae import SAE

Control = Literal["orthogonal", "other_atom", "pca", "flat_svd"]
"""`orthogonal`: a random rank-1 matrix at the atom's coefficient, both sides orthogonal to the native write's.
`other_atom`: another atom that is alive in the same passages, with as large a contribution.
`pca`: the native write's projection onto the best rank-1 part of the writes' first principal direction (uncentred).
`flat_svd`: the top feature of a flat dictionary at the same token, its atom cut to its largest singular pair."""

PCA_WRITES = 1024


def normalize(x: Tensor) -> Tensor:
    """Unit vectors along the last axis."""
    unit: Tensor = _normalize(x, dim=-1)
    return unit


class Component(NamedTuple):
    """A rank-1 matrix at each firing: `size` times unit `key` times unit `value`."""

    key: Tensor
    """`[R, K]`."""
    value: Tensor
    """`[R, V]`."""
    size: Tensor
    """`[R]`."""


@dataclass(frozen=True)
class Firings:
    """Places where an atom is to replace a write, all tensors `[R]` or `[R, d]`."""

    passage: Tensor
    position: Tensor
    feature: Tensor
    coefficient: Tensor
    key: Tensor
    """Key side of the native write."""
    value: Tensor
    """Value side of the native write."""
    v: Tensor
    """Key side of the atom."""
    w: Tensor
    """Value side of the atom."""

    @property
    def norm(self) -> Tensor:
        """Frobenius norm of the native write."""
        size: Tensor = torch.linalg.vector_norm(self.key, dim=-1) * torch.linalg.vector_norm(self.value, dim=-1)
        return size

    @property
    def atom_norm(self) -> Tensor:
        """Frobenius norm of the atom itself."""
        size: Tensor = torch.linalg.vector_norm(self.v, dim=-1) * torch.linalg.vector_norm(self.w, dim=-1)
        return size

    @property
    def cosine(self) -> Tensor:
        """Of the atom to the native write."""
        overlap = (self.key * self.v).sum(-1) * (self.value * self.w).sum(-1)
        return overlap / (self.norm * self.atom_norm).clamp_min(1e-30)


def random_component(firings: Firings, generator: torch.Generator) -> Component:
    """Independent normal directions, as large as the atom's contribution."""
    x, y = (normalize(torch.randn(s.shape, generator=generator)) for s in (firings.v, firings.w))
    return Component(x.to(firings.key), y.to(firings.key), firings.coefficient * firings.atom_norm)


def control_component(
    name: Control,
    firings: Firings,
    writes: HeadWrites,
    native_write: NativeWrite,
    sae: SAE,
    flat: SAE | None,
    generator: torch.Generator,
) -> Component:
    """One control at every firing. Raises InputError for `flat_svd` without a flat dictionary, and for `other_atom`
    where only one atom is alive."""
    size = firings.coefficient * firings.atom_norm
    if name == "orthogonal":
        loose = random_component(firings, generator)
        return Component(_without(loose.key, firings.key), _without(loose.value, firings.value), size)
    if name == "other_atom":
        other = _others(firings.feature, sae, writes, generator)
        atoms = sae.atoms()
        return Component(normalize(atoms.v[other]), normalize(atoms.w[other]), size)
    if name == "pca":
        x, y = principal_pair(writes.written.key.flatten(0, 1), writes.side(native_write).flatten(0, 1))
        amount = (firings.key @ x) * (firings.value @ y)
        return Component(x.expand_as(firings.key), y.expand_as(firings.value), amount)
    if flat is None:
        raise InputError("the control flat_svd needs a flat dictionary of the same head: pass flat=...")
    codes = flat.encode_written(writes.written)
    value, slot = codes.value[firings.passage, firings.position].max(-1)
    index = codes.index[firings.passage, firings.position].gather(-1, slot.unsqueeze(-1)).squeeze(-1)
    left, singular, right = torch.linalg.svd(flat.atom_matrices().detach()[index], full_matrices=False)
    return Component(left[:, :, 0], right[:, 0], value * singular[:, 0])


def _without(x: Tensor, direction: Tensor) -> Tensor:
    unit = normalize(direction)
    return normalize(x - (x * unit).sum(-1, keepdim=True) * unit)


def _others(feature: Tensor, sae: SAE, writes: HeadWrites, generator: torch.Generator) -> Tensor:
    codes = sae.encode_written(writes.written)
    alive = torch.unique(codes.index[codes.value > 0]).cpu()
    if len(alive) < 2:
        raise InputError(f"only {len(alive)} atom fires in these passages: there is no other atom to compare with")
    drawn = torch.randint(len(alive) - 1, feature.shape, generator=generator)
    own = torch.searchsorted(alive, feature.cpu())
    chosen: Tensor = alive[drawn + (drawn >= own).long()]
    return chosen.to(feature.device)


def principal_pair(key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Unit `(x [K], y [V])`: the largest singular pair of the first (uncentred) principal direction of the matrices
    `key_s value_s^T`, of at most 1,024 of them, evenly spaced."""
    every = -(-len(key) // PCA_WRITES)
    k, u = key[::every].double(), value[::every].double()
    gram = (k @ k.T) * (u @ u.T)
    weights = torch.linalg.eigh(gram).eigenvectors[:, -1]
    left, _, right = torch.linalg.svd((k * weights[:, None]).T @ u, full_matrices=False)
    return left[:, 0].to(key), right[0].to(value)
