"""Names for places in a model, and the shape letters that every signature uses.

Shape letters: B batch, T time, H heads, K = d_k (key side), V = d_v (value side), N features, J active features.
Streams are `[B, T, H, d]`, states `[B, H, K, V]`; an atom is `v w^T` with `v: (K,)` and `w: (V,)`.

Where dimensions matter a signature holds them, `Float[Tensor, "B T K"]`: `*T` any number of dimensions, `#K` that
dimension or 1. It means nothing at run time; the tests put jaxtyping's types here, which are then checked at each call.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated as Bool
from typing import Annotated as Float
from typing import Annotated as Int
from typing import Literal

from writesae.errors import InputError

__all__ = [
    "Amplitude", "Bool", "DirectionKind", "Float", "Int", "KLDirection", "NativeWrite", "ReadAs", "Reading",
    "Site", "Target", "Timing",
]  # fmt: skip

Target = Literal["state", "write-value", "write-delta"]
"""The matrix a dictionary models: the state after a token, the native write `b k v^T`, or the delta write `k u^T`."""

Timing = Literal["after_token", "at_token"]
"""Whether the edited token itself reads the edited state (`at_token`) or only later tokens do (`after_token`)."""


NativeWrite = Literal["delta", "value"]
"""Which matrix counts as a token's write: `delta`, `k u^T`, what the layer really adds to the decayed state; `value`,
`b k v^T`, the paper's native write."""

Amplitude = Literal["coefficient", "norm"]
"""How large an atom (or a random matrix) is written: at the atom's coefficient, or at the native write's Frobenius
norm."""

Reading = Literal["state", "increment"]
"""Which feature of a dictionary of states is read at a token: the one with the largest coefficient in the state after
it; or the one that the token's own write raises most, by how much it raises it (MATH.md section 8)."""

ReadAs = Literal["state", "increment", "write"]
"""How a feature was read: a dictionary of writes has one reading, its code of the token's write, offset included."""

KLDirection = Literal["native||patched", "patched||native"]

DirectionKind = Literal["closed", "exact", "random"]
"""Which rank-1 matrix is written for a target token: towards its unembedding through the head, the one that most raises
its logit to first order, or a random one."""


@dataclass(frozen=True, order=True)
class Site:
    """One recurrent head of a model, written `L9.H4`: model layer 9 (counted from 0), head 4."""

    layer: int
    head: int

    def __str__(self) -> str:
        return f"L{self.layer}.H{self.head}"

    @classmethod
    def parse(cls, text: str) -> Site:
        """Read `L9.H4`; raises InputError for anything else."""
        match = re.fullmatch(r"L(\d+)\.H(\d+)", text)
        if match is None:
            raise InputError(f"site {text!r} is not written like L9.H4 (layer, head, both counted from 0)")
        return cls(int(match[1]), int(match[2]))
