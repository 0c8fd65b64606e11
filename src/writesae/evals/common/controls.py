"""What can be put in the place of a native write besides the atom: the baselines of the substitution test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize as _normalize

from writesae.causal.budget import passages_at_once
from writesae.causal.writes import HeadWrites, stream_writes
from writesae.errors import InputError
from writesae.evals.common.conditions import RANDOM, Control
from writesae.evals.common.draws import generator_for
from writesae.hosts import Host
from writesae.sae import SAE, Codes
from writesae.types import NativeWrite, ReadAs, Reading, Site

PCA_WRITES = 1024


def normalize(x: Tensor) -> Tensor:
    """Unit vectors along the last axis."""
    unit: Tensor = _normalize(x, dim=-1)
    return unit


class View(NamedTuple):
    """What is replaced at a place, and by which feature."""

    native_write: NativeWrite
    reading: ReadAs
    """`write` for dictionaries of writes, which have no other."""


class Component(NamedTuple):
    """A rank-1 matrix at each firing: `size` times unit `key` times unit `value`. A negative size turns it around."""

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

    def __getitem__(self, index: Tensor) -> Firings:
        return Firings(*(getattr(self, part.name)[index] for part in fields(self)))

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


def atom_component(firings: Firings) -> Component:
    """The atom at its coefficient."""
    return Component(normalize(firings.v), normalize(firings.w), firings.coefficient * firings.atom_norm)


def random_component(firings: Firings, generator: torch.Generator) -> Component:
    """Independent normal directions, as large as the atom's contribution."""
    x, y = (normalize(torch.randn(s.shape, generator=generator)) for s in (firings.v, firings.w))
    return Component(x.to(firings.key), y.to(firings.key), firings.coefficient * firings.atom_norm)


class Picked(NamedTuple):
    """What one reading says at some places: features and their coefficients, largest first, 0 where there are no more.
    `[R, J]`."""

    feature: Tensor
    value: Tensor


def picked(sae: SAE, writes: HeadWrites, codes: Codes, view: View, passage: Tensor, position: Tensor) -> Picked:
    """Every active feature of a dictionary at some places `[R]`, which have these codes.

    By increment they are as many as are active in the state, those that the write raises most, one at least.
    """
    value, slot = codes.value.sort(-1, descending=True)
    if view.reading != "increment" or sae.target != "state":
        return Picked(codes.index.gather(-1, slot), value)
    return Picked(*writes.raised(sae, view.native_write, passage, position, codes))


def readings_of(saes: Sequence[SAE], asked: Sequence[Reading]) -> tuple[ReadAs, ...]:
    """Those that were asked for, where one of the dictionaries is of states; else the one of dictionaries of writes."""
    return tuple(asked) if any(sae.target == "state" for sae in saes) else ("write",)


class Background(NamedTuple):
    """What all passages together say about one head: the same for every firing, whatever is scored at once."""

    alive: Tensor
    """The features that fire anywhere, sorted, `[A]`."""
    key: Tensor
    """Unit key side of the writes' principal pair, `[K]`."""
    value: Tensor
    """Unit value side of it, `[V]`."""


NEEDS_BACKGROUND: frozenset[Control] = frozenset({"other_atom", "pca"})
OF_THE_WRITE: frozenset[str] = frozenset({"orthogonal", "pca"})
"""Controls that depend on which form of the native write they stand for."""


@torch.no_grad()
def background(
    host: Host, sae: SAE, site: Site, tokens: Tensor, native_writes: Sequence[NativeWrite]
) -> dict[NativeWrite, Background]:
    """Read the writes of all passages `[B, T]`, some at a time, and what they say in each form."""
    alive = torch.zeros(sae.config.features, dtype=torch.bool)
    every = -(-tokens.numel() // PCA_WRITES)
    keys, values, seen = list[Tensor](), {form: list[Tensor]() for form in native_writes}, 0
    for part in torch.split(tokens, passages_at_once(host, tokens.shape[1], site.layer)):
        writes = stream_writes(host.record(part, [site.layer])[site.layer].heads(site.head))
        codes = writes.encode(sae)
        alive[codes.index[codes.value > 0].cpu()] = True
        some = slice(-seen % every, None, every)
        keys.append(writes.written.key.flatten(0, 1)[some])
        for form, sides in values.items():
            sides.append(writes.side(form).flatten(0, 1)[some])
        seen += part.numel()
    known, key = alive.nonzero().squeeze(1), torch.cat(keys)
    return {form: Background(known, *principal_pair(key, torch.cat(sides))) for form, sides in values.items()}


def control_component(
    name: Control, firings: Firings, writes: HeadWrites, sae: SAE, flat: SAE | None, common: Background | None,
    generator: torch.Generator, codes: Codes | None = None,
) -> Component:  # fmt: skip
    """One control at every firing. `common` is needed for the controls of `NEEDS_BACKGROUND`, and the `codes` of the
    places for `other_atom`, where they are not to be computed here. Raises InputError for
    `flat_svd` without a flat dictionary, and for `other_atom` where every alive atom fires."""
    size = firings.coefficient * firings.atom_norm
    if name == "orthogonal":
        loose = random_component(firings, generator)
        return Component(_without(loose.key, firings.key), _without(loose.value, firings.value), size)
    if name == "flat_svd":
        if flat is None:
            raise InputError("the control flat_svd needs a flat dictionary of the same head: pass flat=...")
        index, value = writes.top(flat, firings.passage, firings.position)
        left, singular, right = torch.linalg.svd(flat.atom_matrices(index).detach(), full_matrices=False)
        return Component(left[:, :, 0], right[:, 0], value * singular[:, 0])
    if common is None:
        raise ValueError(f"the control {name} needs the background of its passages")
    if name == "other_atom":
        known = writes.at(sae, firings.passage, firings.position) if codes is None else codes
        other = _others(known, firings.feature, common.alive, generator)
        atoms = sae.atoms()
        return Component(normalize(atoms.v[other]), normalize(atoms.w[other]), size)
    amount = (firings.key @ common.key) * (firings.value @ common.value)
    return Component(common.key.expand_as(firings.key), common.value.expand_as(firings.value), amount)


@dataclass(frozen=True)
class ScoredHead:
    """One of the heads that are edited together."""

    site: Site
    sae: SAE
    writes: HeadWrites
    """Of the run's passages."""
    firings: Firings
    """Sorted by passage. Where the coefficient is 0 this head is left alone."""
    flat: SAE | None = None
    """The dictionary of the control `flat_svd`."""
    common: Background | None = None
    """What the controls `pca` and `other_atom` need."""
    active: Picked | None = None
    """What the control `all_active` needs."""


def replacement(head: ScoredHead, name: Control | Literal["atom", "random"], seed: int, offset: int) -> Component:
    """What stands in the place of the write at every firing: a sum of rank-1 matrices, `[R, J, d]` and `[R, J]`."""
    if name == "all_active":
        if head.active is None:
            raise ValueError("the control all_active needs the active features of its places")
        feature, value = head.active
        atoms = head.sae.atoms()
        v, w = atoms.v[feature], atoms.w[feature]
        return Component(normalize(v), normalize(w), value * v.norm(dim=-1) * w.norm(dim=-1))
    one = atom_component(head.firings) if name == "atom" else drawn(head, name, seed, offset)
    return Component(*(part.unsqueeze(1) for part in one))


def drawn(head: ScoredHead, name: Control | Literal["random"], seed: int, offset: int) -> Component:
    """One component at every firing. What is random is drawn passage by passage from a seed of its own, so that it
    depends on neither the other passages nor the other controls."""
    whole = head.firings
    codes = head.writes.at(head.sae, whole.passage, whole.position) if name == "other_atom" else None

    def make(firings: Firings, generator: torch.Generator, codes: Codes | None) -> Component:
        if name == "random":
            return random_component(firings, generator)
        return control_component(name, firings, head.writes, head.sae, head.flat, head.common, generator, codes)

    if name not in RANDOM or not len(whole.passage):
        return make(whole, torch.Generator(), codes)
    pieces = []
    for passage in torch.unique_consecutive(whole.passage).tolist():
        generator, here = generator_for(seed, str(head.site), passage + offset, name), whole.passage == passage
        pieces.append(make(whole[here], generator, codes and Codes(*(x[here] for x in codes))))
    return Component(*(torch.cat(parts) for parts in zip(*pieces, strict=True)))


def _without(x: Tensor, direction: Tensor) -> Tensor:
    unit = normalize(direction)
    return normalize(x - (x * unit).sum(-1, keepdim=True) * unit)


def _others(codes: Codes, feature: Tensor, alive: Tensor, generator: torch.Generator) -> Tensor:
    """For each of some places `[R]` with these codes and features, one that is alive and neither of them, `[R]`."""
    firing = torch.cat([torch.where(codes.value > 0, codes.index, feature[:, None]), feature[:, None]], 1).cpu()
    silent = (alive[None, :, None] != firing[:, None, :]).all(-1)
    if not silent.any(-1).all():
        raise InputError(
            f"all of the {len(alive)} atoms that are alive in these passages fire at one token: there is no other atom "
            "to compare with"
        )
    chosen: Tensor = alive[torch.multinomial(silent.float(), 1, generator=generator)[:, 0]]
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
