"""Which atoms, and when they are read."""

from __future__ import annotations

from dataclasses import dataclass

from writesae.config import at_least, no_repeats, not_empty
from writesae.types import NativeWrite, Timing


@dataclass(frozen=True)
class ReadersConfig:
    """Add atoms to the state and see which later heads' outputs change, against random writes of the same size."""

    atoms: int = 16
    """Atoms, those that fire most often."""
    features: tuple[int, ...] = ()
    """These atoms instead."""
    firings: int = 16
    """Firings of each, drawn at random; atoms with fewer are refused."""
    timings: tuple[Timing, ...] = ("after_token", "at_token")
    """Whether the edited token reads the edited state itself, and is read there; else the token after it is."""
    native_writes: tuple[NativeWrite, ...] = ()
    """Whose norm everything is added at; empty: delta and value, where they differ."""
    seed: int = 0
    """Of the firings, the random writes and the bootstrap."""

    def __post_init__(self) -> None:
        not_empty(self, "timings")
        no_repeats(self, "timings", "native_writes")
        at_least(self, atoms=1, features=0, firings=1)
