"""What can stand in the place of a native write. Nothing heavy is imported here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, cast

from writesae.config import no_repeats, not_empty

if TYPE_CHECKING:
    import pandas as pd

Control = Literal["orthogonal", "other_atom", "pca", "flat_svd"]
"""`orthogonal`: a random rank-1 matrix, both sides orthogonal to the native write's.
`other_atom`: another atom that is alive in the passages.
`pca`: the best rank-1 part of the writes' first principal direction (uncentred).
`flat_svd`: the top feature of a flat dictionary at the same token, its atom cut to its largest singular pair.
At the amplitude `coefficient` the first two are as large as the atom's contribution, `pca` is the native write's
projection, and `flat_svd` has its own coefficient; at `norm` all have the native write's Frobenius norm."""

CONDITIONS = ("atom", "delete", "random")
"""What is always put in the place of the native write: the atom, nothing, a random rank-1 matrix."""

ADDED = ("atom", "random", "orthogonal_to_atom")
"""What is added to a state in turn, at the native write's norm: the atom, a random rank-1 matrix, and a random one both
sides of which are orthogonal to the atom's."""

ADDED_WHERE = {
    "passage": "number of the passage",
    "position": "token within it",
    "feature": "the atom that fires there",
    "coefficient": "its coefficient",
    "timing": "whether the edited token reads the edited state itself (at_token) or not (after_token)",
    "native_write": "the form of the native write at whose norm everything is added",
}
"""Columns that say at which firing something was added."""

CELL = ("timing", "native_write", "amplitude", "direction")
"""Columns that say how a record was measured: every firing has one row for each cell."""


def check_grid(config: object) -> None:
    """Raise ConfigError where a list of the grid is empty or names a value twice."""
    not_empty(config, "timings", "amplitudes", "directions")
    no_repeats(config, "timings", "native_writes", "amplitudes", "directions", "controls")


def cells(records: pd.DataFrame, by: Sequence[str] = CELL) -> list[tuple[tuple[str, ...], pd.DataFrame]]:
    """(timing, native write, amplitude, direction) and the records of each, in the order of the first records."""
    groups = records.groupby(list(by), sort=False)
    return [(cast(tuple[str, ...], key), table) for key, table in groups]


def conditions(records: pd.DataFrame) -> list[str]:
    """The conditions that the records hold, in their order."""
    return [str(c).removeprefix("kl_") for c in records.columns if str(c).startswith("kl_")]


def step_column(condition: str, step: int) -> str:
    """The record column of a condition's KL at one scored position, counted from 1; kept where there are several."""
    return f"step{step}_kl_{condition}"
