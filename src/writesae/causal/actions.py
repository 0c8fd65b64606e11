"""What an edit adds to a head's state at a token: one small description a kind, each with its matrix."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from writesae.causal.identity import check_features, check_size
from writesae.causal.schedule import When
from writesae.causal.seen import Seen, Tokens
from writesae.causal.writes import stream_writes
from writesae.errors import InputError
from writesae.hosts import Host
from writesae.sae import SAE
from writesae.types import Amplitude, NativeWrite, Reading, Site, Timing


def _finite(name: str, value: float) -> None:
    if not math.isfinite(value):
        raise InputError(f"the {name} of an edit is {value}; give a finite number")


@dataclass(frozen=True)
class EraseWrite:
    """Take out the token's native write."""

    native_write: NativeWrite = "delta"

    def matrix(self, seen: Seen, place: Tensor) -> Tensor:
        """`-write`, `[B, K, V]`."""
        return -seen.write(self.native_write)

    def __str__(self) -> str:
        return f"erase the native write ({self.native_write})"


@dataclass(frozen=True, eq=False)
class ChangeFeatures:
    """Bring features' coefficients from `a` to `factor a + amount`, as the dictionary reads them.

    A factor of 0 erases what they contribute, and with amounts clamps them; below 1 suppresses, above 1 amplifies.
    Amounts are added to features that fire and to those that do not. For a dictionary of states the coefficient is read
    off the state as edited so far: at every token, a factor `m` compounds; with decay `d` a component grows where
    `m d > 1`. By increment it is what the token's own write adds, of the features that this raises most, and nothing
    compounds.
    """

    sae: SAE
    features: tuple[int, ...]
    factor: float = 1.0
    amounts: tuple[float, ...] = ()
    """One a feature; none for 0."""
    reading: Reading = "state"
    native_write: NativeWrite = "delta"
    """The form of the write that an increment is of."""

    def __post_init__(self) -> None:
        for name, value in [("factor", self.factor), *(("amount", amount) for amount in self.amounts)]:
            _finite(name, value)
        check_features(self.sae, self.features)
        if self.amounts and len(self.amounts) != len(self.features):
            raise InputError(f"{len(self.amounts)} amounts were given for {len(self.features)} features: give one each")

    def matrix(self, seen: Seen, place: Tensor) -> Tensor:
        """`sum_i ((factor - 1) a_i + amount_i) atom_i`, `[B, K, V]`."""
        change = torch.tensor(self.amounts or (0.0,)).to(seen.key).expand(len(seen.key), len(self.features))
        if self.factor != 1:
            read = seen.coefficients(self.sae, self.features, self.reading, self.native_write)
            change = change + (self.factor - 1) * read
        atoms = self.sae.atom_matrices(torch.tensor(self.features)).detach()
        return torch.einsum("bn,nkv->bkv", change, atoms.to(change))

    def __str__(self) -> str:
        names = ", ".join(map(str, self.features)) + _how(self)
        if not self.amounts:
            return f"multiply features {names} by {self.factor:g}"
        if self.factor == 0:
            pairs = zip(self.features, self.amounts, strict=True)
            return "clamp " + ", ".join(f"feature {feature} to {amount:g}" for feature, amount in pairs)
        each = self.amounts if len(set(self.amounts)) > 1 else self.amounts[:1]
        added = f"add {', '.join(f'{amount:g}' for amount in each)} to features {names}"
        return added if self.factor == 1 else f"multiply features {names} by {self.factor:g}, {added}"


@dataclass(frozen=True, eq=False)
class ReplaceByAtom:
    """Put an atom where the native write was: at its own coefficient, or at the native write's Frobenius norm."""

    sae: SAE
    feature: int | None = None
    """None for the feature with the largest coefficient at this token."""
    amplitude: Amplitude = "coefficient"
    native_write: NativeWrite = "delta"
    reading: Reading = "state"
    """What a coefficient is: of a dictionary of states what the state holds, or by how much the token's write raises
    it (increment). Of a dictionary of writes, its code."""

    def __post_init__(self) -> None:
        check_features(self.sae, (0 if self.feature is None else self.feature,))

    def matrix(self, seen: Seen, place: Tensor) -> Tensor:
        """`amplitude * atom - write`, `[B, K, V]`."""
        dense = seen.amounts(self.sae, self.reading, self.native_write)
        index = dense.argmax(-1) if self.feature is None else torch.full_like(seen.position, self.feature)
        atom = self.sae.atom_matrices(index).detach().to(seen.key)
        if self.amplitude == "coefficient":
            size = dense.gather(1, index[:, None])[:, 0]
            size = size.clamp_min(0) if self.feature is None else size  # a write that raises no feature has no atom
        else:
            size = seen.write_norm(self.native_write) / atom.flatten(1).norm(dim=1)
        return size[:, None, None] * atom - seen.write(self.native_write)

    def __str__(self) -> str:
        atom = "the top atom" if self.feature is None else f"atom {self.feature}"
        return f"replace the native write ({self.native_write}) by {atom} at its {self.amplitude}{_how(self)}"


def _how(action: ChangeFeatures | ReplaceByAtom) -> str:
    """How a dictionary of states is read, if not as published."""
    return ", read by increment" * (action.reading == "increment" and action.sae.config.target == "state")


@dataclass(frozen=True, eq=False)
class Install:
    """Add a direction `v w^T` at a multiple of the native write's norm."""

    key: Tensor
    """Unit `v`: `[K]`, or `[rows, positions, K]` with one for each position of the schedule (1 broadcasts)."""
    value: Tensor
    """Unit `w`: `[V]`, or `[rows, positions, V]`."""
    magnitude: float
    """Frobenius norm of what is added, in native writes."""
    native_write: NativeWrite = "value"
    label: str = "a direction"

    def __post_init__(self) -> None:
        _finite("magnitude", self.magnitude)

    def matrix(self, seen: Seen, place: Tensor) -> Tensor:
        """`magnitude |write| v w^T`, `[B, K, V]`."""
        key, value = (self._here(x, seen, place) for x in (self.key, self.value))
        size = self.magnitude * seen.write_norm(self.native_write)
        return size[:, None, None] * key[:, :, None] * value[:, None, :]

    def _here(self, x: Tensor, seen: Seen, place: Tensor) -> Tensor:
        x = x.to(seen.key)
        if x.ndim == 1:
            return x.expand(len(seen.key), -1)
        row = torch.zeros_like(seen.row) if len(x) == 1 else seen.row
        return x[row, torch.zeros_like(place) if x.shape[1] == 1 else place.clamp_min(0)]

    def __str__(self) -> str:
        return f"install {self.label} at {self.magnitude:g} x the native write's norm ({self.native_write})"


class Write(NamedTuple):
    """A write taken from some run, to be put elsewhere."""

    key: Tensor
    """`[K]`."""
    value: Tensor
    """`[V]`."""


@dataclass(frozen=True, eq=False)
class Transplant:
    """Add a write of another run, in place of the token's own or on top of it."""

    write: Write
    """Or one for each row of the pass, `[rows, K]` and `[rows, V]`, or each place in it too, `[rows, places, d]`."""
    replaced: NativeWrite | None = "delta"
    """The native write that gives way; None keeps it."""

    def matrix(self, seen: Seen, place: Tensor) -> Tensor:
        """`other write - write`, `[B, K, V]`."""
        at = (slice(None), (seen.row,), (seen.row, place.clamp_min(0)))
        key, value = (x.to(seen.key)[at[x.ndim - 1]] for x in self.write)
        other = key[..., :, None] * value[..., None, :]
        return other.expand_as(seen.state) if self.replaced is None else other - seen.write(self.replaced)

    def __str__(self) -> str:
        return "transplant a write" + ("" if self.replaced is None else f" for the native one ({self.replaced})")


@dataclass(frozen=True, eq=False)
class AddMatrix:
    """Add a matrix to the state."""

    matrix_: Tensor
    """`[K, V]`, or `[rows, K, V]`."""

    def matrix(self, seen: Seen, place: Tensor) -> Tensor:
        """The same for every token, `[B, K, V]`."""
        matrix = self.matrix_.to(seen.key)
        return matrix[seen.row] if matrix.ndim == 3 and len(matrix) > 1 else matrix.expand_as(seen.state)

    def __str__(self) -> str:
        return f"add a matrix of norm {float(self.matrix_.norm()):.3g}"


class Action(Protocol):
    """What an edit adds. Any object with these two methods is one; those above are what users need."""

    def matrix(self, seen: Seen, place: Tensor) -> Tensor:
        """What is added to the state of each row, `[B, K, V]`; `place` `[B]` is the number that the schedule gives to
        this token, -1 in rows where the edit does not act."""

    def __str__(self) -> str:
        """In words."""


@dataclass(frozen=True, eq=False)
class Edit:
    """One edit: where, what, when. Edits are made in the order given; each sees what those before it did."""

    site: Site
    what: Action
    when: When
    timing: Timing = "after_token"
    """Whether the edited token itself reads the edited state."""
    row: int | None = None
    """The one row of the batch that is edited, with all of its beams or samples; None for all."""

    def places(self, tokens: Tokens) -> Tensor:
        """The schedule's places in the rows that are edited, -1 elsewhere and in padding, `[B, T]`."""
        mine = tokens.position >= 0
        if self.row is not None:
            mine = mine & (tokens.row == self.row)[:, None]
        return torch.where(mine, self.when.places(tokens), -1)

    def __str__(self) -> str:
        row = "" if self.row is None else f", row {self.row}"
        return f"{self.site}: {self.what}, {self.when}, {self.timing}{row}"


def check_edit(host: Host, edit: Edit) -> None:
    """Raise InputError for a site the host does not have, a row below 0, or tensors or dictionaries of another size."""
    layer, what = host.check_site(edit.site), edit.what
    size = (layer.d_k, layer.d_v)
    if edit.row is not None and edit.row < 0:
        raise InputError(f"an edit was asked for row {edit.row}; rows are counted from 0")
    for holder in (what, edit.when):
        sae = getattr(holder, "sae", None)
        if isinstance(sae, SAE):
            check_size(host, edit.site, sae)
    given: tuple[int, ...] | None = None
    if isinstance(what, Install):
        given = (what.key.shape[-1], what.value.shape[-1])
    elif isinstance(what, Transplant):
        given = (what.write.key.shape[-1], what.write.value.shape[-1])
    elif isinstance(what, AddMatrix):
        given = tuple(what.matrix_.shape[-2:])
    if given is not None and given != size:
        raise InputError(
            f"an edit of {given[0]} x {given[1]} was given for {edit.site}, which writes {size[0]} x {size[1]}"
        )


@torch.no_grad()
def take_write(host: Host, tokens: Tensor, site: Site, position: int, native_write: NativeWrite = "delta") -> Write:
    """The native write of a token of a passage `[T]`, for `Transplant`. Raises InputError for a position outside it."""
    host.check_site(site)
    if not 0 <= position < len(tokens):
        raise InputError(f"position {position} was asked of a passage with positions 0 to {len(tokens) - 1}")
    writes = stream_writes(host.record(tokens[None, : position + 1], [site.layer])[site.layer].heads(site.head))
    return Write(writes.written.key[0, -1], writes.side(native_write)[0, -1])
