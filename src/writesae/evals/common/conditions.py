"""What can stand in the place of a native write. Nothing heavy is imported here."""

from __future__ import annotations

from typing import Literal

Control = Literal["orthogonal", "other_atom", "pca", "flat_svd"]
"""`orthogonal`: a random rank-1 matrix at the atom's coefficient, both sides orthogonal to the native write's.
`other_atom`: another atom that is alive in the passages, with as large a contribution.
`pca`: the native write's projection onto the best rank-1 part of the writes' first principal direction (uncentred).
`flat_svd`: the top feature of a flat dictionary at the same token, its atom cut to its largest singular pair."""
