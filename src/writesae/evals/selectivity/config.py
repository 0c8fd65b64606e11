"""Which atoms, and how many tokens are compared."""

from __future__ import annotations

from dataclasses import dataclass

from writesae.config import at_least, no_repeats, not_empty
from writesae.types import NativeWrite, Timing


@dataclass(frozen=True)
class SelectivityConfig:
    """Compare the tokens that an atom moves most with those that matched random directions move most."""

    atoms: int = 48
    """Atoms, those that fire most often."""
    features: tuple[int, ...] = ()
    """These atoms instead."""
    firings: int = 8
    """Firings of each, drawn at random; atoms with fewer are refused."""
    top: int = 32
    """K, the most moved tokens that are compared."""
    timings: tuple[Timing, ...] = ("after_token", "at_token")
    """Whether the edited token reads the edited state itself."""
    native_writes: tuple[NativeWrite, ...] = ()
    """Whose norm everything is added at; empty: delta and value, where they differ."""
    seed: int = 0
    """Of the firings, the random directions and the bootstrap."""

    def __post_init__(self) -> None:
        not_empty(self, "timings")
        no_repeats(self, "timings", "native_writes")
        at_least(self, atoms=1, features=0, firings=1, top=1)
