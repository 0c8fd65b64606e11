"""What encoding and inspecting return."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from writesae.types import Float, Int


class Codes(NamedTuple):
    """Active features of each token, sparse; slots that are not used hold value 0."""

    index: Int[Tensor, "*T J"]  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    """Feature numbers, `[..., J]` int64."""
    value: Float[Tensor, "*T J"]
    """Coefficients `a >= 0`, `[..., J]`."""

    def dense(self, features: int) -> Float[Tensor, "*T N"]:
        """The same as `[..., N]` coefficients."""
        zeros = self.value.new_zeros(*self.value.shape[:-1], features)
        return zeros.scatter_add(-1, self.index, self.value)


class Atoms(NamedTuple):
    """Rank-1 atoms `v w^T`."""

    v: Float[Tensor, "N K"]
    """Key sides, `[N, K]`."""
    w: Float[Tensor, "N V"]
    """Value sides, `[N, V]`."""
