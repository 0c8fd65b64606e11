"""Where the states are replaced, and which of them together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from writesae.config import no_repeats

Scope = Literal["layer", "head"]
"""Which states are replaced together."""


@dataclass(frozen=True)
class FidelityConfig:
    """Replace states by their reconstruction after a native prefix, and score the text that follows."""

    prefix: float = 0.5
    """Share of each passage that runs before the states are replaced."""
    scopes: tuple[Scope, ...] = ()
    """Beside all dictionaries at once, also replace those of each layer together, or of each head alone."""
    seed: int = 0
    """Of the bootstrap."""

    def __post_init__(self) -> None:
        no_repeats(self, "scopes")
