"""Which writes, and what stands in their place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from writesae.config import at_least, no_repeats, not_empty
from writesae.types import Amplitude, NativeWrite, Timing

AtomClass = Literal["register", "bundle"]
"""The two classes of `partition` that fire."""


@dataclass(frozen=True)
class PassageLossConfig:
    """Delete or replace every write on which a class of atoms fires, over whole passages."""

    kind: AtomClass = "register"
    """The class, as `partition` finds it on the same passages, by the cosine to the write that is replaced."""
    features: tuple[int, ...] = ()
    """These features instead of a class."""
    timings: tuple[Timing, ...] = ("after_token", "at_token")
    """Whether the edited token reads the edited state itself."""
    native_writes: tuple[NativeWrite, ...] = ()
    """Which matrix counts as a token's write; empty: all that the head has, delta and value where they differ."""
    amplitudes: tuple[Amplitude, ...] = ("coefficient", "norm")
    """How large the atom or a random matrix is: at the atom's coefficient, or at the native write's norm."""
    seed: int = 0
    """Of the random matrices and the bootstrap."""

    def __post_init__(self) -> None:
        not_empty(self, "timings", "amplitudes")
        no_repeats(self, "timings", "native_writes", "amplitudes")
        at_least(self, features=0)
