"""What can stand in the place of a native write, and the ways of measuring. Nothing heavy is imported here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from writesae.config import at_least
from writesae.types import DirectionKind, KLDirection, NativeWrite, Reading, Timing

if TYPE_CHECKING:
    import pandas as pd

Size = Literal["coefficient", "norm", "projection"]
"""How large what stands in a write's place is."""

Control = Literal["random_coefficient", "random_norm", "orthogonal", "other_atom", "pca", "flat_svd", "all_active"]
"""`random_coefficient`, `random_norm`: the random rank-1 matrix at one size (`SIZED`), whatever the atom's.
`orthogonal`: a random rank-1 matrix, both sides orthogonal to the native write's.
`other_atom`: another atom, alive in the passages but silent at the token.
`pca`: the best rank-1 part of the writes' first principal direction (uncentred).
`flat_svd`: the top feature of a flat dictionary at the same token, its atom cut to its largest singular pair.
`all_active`: all the features that are active at the token together, each at its coefficient, the most that the
dictionary says; by increment, as many as are active in the state, those that the write raises most.
At the amplitude `coefficient` `orthogonal` and `other_atom` are as large as the atom's contribution, `pca` is the
native write's projection, and `flat_svd` has its own coefficient; at `norm` they have the write's Frobenius norm."""

SIZED: Mapping[str, Size] = {"random_coefficient": "coefficient", "random_norm": "norm"}
"""Controls that are the condition `random` at a size of their own."""

CONDITIONS = ("atom", "delete", "random")
"""What is always put in the place of the native write: the atom, nothing, a random rank-1 matrix."""

RANDOM = ("random", "random_coefficient", "random_norm", "orthogonal", "other_atom")
"""Those that are drawn."""

ADDED = ("atom", "random", "orthogonal_to_atom")
"""What is added to a state in turn, at the native write's norm: the atom, a random rank-1 matrix, and a random one both
sides of which are orthogonal to the atom's."""

COMMON = {
    "passage": "number of the passage",
    "position": "token within it",
    "token": "its id",
    "feature": "feature",
    "coefficient": "its coefficient there",
    "timing": "whether the edited token reads the edited state itself (at_token) or not (after_token)",
}
"""Columns of most tables."""


def common(*names: str) -> dict[str, str]:
    """What these columns mean."""
    return {name: COMMON[name] for name in names}


ADDED_WHERE = common("passage", "position", "feature", "coefficient", "timing") | {
    "native_write": "the form of the native write at whose norm everything is added"
}
"""Columns that say at which firing something was added."""

CELL = ("timing", "native_write", "reading", "amplitude", "direction")
"""Columns that say how a record was measured: every firing has one row for each cell."""


@dataclass(frozen=True)
class Forms:
    """What a token's write is."""

    native_writes: tuple[NativeWrite, ...] = ()
    """Which matrix counts as the token's write; empty: all that the head has, delta and value where they differ."""
    seed: int = 0
    """Of everything that is random: places, firings, tokens, matrices, the bootstrap."""


@dataclass(frozen=True)
class Ways(Forms):
    """Ways of measuring: everything is measured in each of them."""

    timings: tuple[Timing, ...] = ("after_token", "at_token")
    """Whether the edited token reads the edited state itself."""


@dataclass(frozen=True)
class Grid(Ways):
    """How every firing is scored: one record for each timing, native write, reading, amplitude and direction."""

    readings: tuple[Reading, ...] = ("state", "increment")
    """Which feature a dictionary of states is asked for: the largest in the state, or the one that the write raises
    most. A dictionary of writes has one reading, its code of the write, and is not run twice."""
    amplitudes: tuple[Size, ...] = ("coefficient", "norm")
    """How large what stands in the write's place is: at the atom's coefficient, at the write's Frobenius norm, or at
    its least-squares coefficient on the write (projection), which parts a wrong direction from a wrong size."""
    directions: tuple[KLDirection, ...] = ("native||patched",)
    """Direction of the KL divergence."""
    controls: tuple[Control, ...] = ()
    """Further replacements beside the atom, deletion and a random matrix; each adds columns."""
    horizon: int = 1
    """Scored positions: the first one and those after it; the KL is their mean, in nats a token."""

    def __post_init__(self) -> None:
        at_least(self, horizon=1)


@dataclass(frozen=True)
class Fired(Ways):
    """Places at which features of a dictionary fire."""

    reading: Reading = "state"
    """Where a feature of a dictionary of states fires: at every token in whose state it is active, or by increment only
    where it is the one that the token's write, in the first of its forms, raises most."""


@dataclass(frozen=True)
class Atoms(Fired):
    """Some firings of some atoms, each of which is added to the state at the norm of the native write."""

    atoms: int = 16
    """Atoms, those that fire most often."""
    features: tuple[int, ...] = ()
    """These atoms instead."""
    firings: int = 16
    """Firings of each, drawn at random; atoms with fewer are refused."""

    def __post_init__(self) -> None:
        at_least(self, atoms=1, features=0, firings=1)


@dataclass(frozen=True)
class Doses(Ways):
    """Rank-1 matrices that are written for a target token, in doses."""

    directions: tuple[DirectionKind, ...] = ("closed", "exact", "random")
    """closed: the query that reads it and the target's unembedding through the head; exact: most raises the target's
    logit to first order; random: a random one."""
    magnitudes: tuple[float, ...] = (1.5, 3.0, 6.0)
    """Frobenius norms of each write, in native writes of the same token; negative ones write the opposite."""
    native_writes: tuple[NativeWrite, ...] = ("value",)
    """Which native write the magnitudes count in."""


@dataclass(frozen=True)
class Continued(Doses):
    """Targets that are written near the end of prompts, and what is then said."""

    new_tokens: int = 20
    """Tokens that are generated."""

    def __post_init__(self) -> None:
        at_least(self, new_tokens=1)


def conditions(records: pd.DataFrame) -> list[str]:
    """The conditions that the records hold, in their order."""
    return [str(c).removeprefix("kl_") for c in records.columns if str(c).startswith("kl_")]


def step_column(condition: str, step: int) -> str:
    """The record column of a condition's KL at one scored position, counted from 1; kept where there are several."""
    return f"step{step}_kl_{condition}"
