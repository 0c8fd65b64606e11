"""Which features, how much is taken out, and which token is followed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from writesae.config import at_least, not_empty
from writesae.types import NativeWrite, Timing


@dataclass(frozen=True)
class ErasureConfig:
    """Take out the native writes on which a feature fires, and follow the token that the feature stands for."""

    features: tuple[int, ...] = ()
    """Features; the one that fires most if none is named."""
    doses: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0)
    """How many times the write is taken out, or added where the feature does not fire."""
    firings: int = 150
    """At most so many firings a feature, and as many other places, drawn at random."""
    native_writes: tuple[NativeWrite, ...] = ("delta", "value")
    """What is taken out: what the token really adds, or b k v^T."""
    timings: tuple[Timing, ...] = ("after_token", "at_token")
    """Whether the edited token itself reads the edit."""
    follow: Literal["closed", "measured"] = "closed"
    """How the followed token is found: closed, the one whose unembedding the atom points at through the head; measured,
    the one that loses most on one half of the passages, and it is followed on the other half."""
    token: int | None = None
    """The followed token, where it is known."""
    seed: int = 0
    """Of the firings, the other places and the halves."""

    def __post_init__(self) -> None:
        not_empty(self, "doses", "native_writes", "timings")
        at_least(self, features=0, firings=1)
