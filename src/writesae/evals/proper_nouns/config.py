"""Which contexts, and how their targets are written."""

from __future__ import annotations

from dataclasses import dataclass

from writesae.config import at_least, not_empty
from writesae.errors import ConfigError
from writesae.types import DirectionKind, NativeWrite, Timing


@dataclass(frozen=True)
class ProperNounsConfig:
    """Write the direction of the name, or the ordinary word, that comes next in the text."""

    contexts: int = 300
    """Contexts a class, each of its own passage."""
    prompt: int = 24
    """Tokens of a context."""
    new_tokens: int = 20
    """Tokens that are generated."""
    directions: tuple[DirectionKind, ...] = ("closed", "exact", "random")
    """exact: most raises the target's logit to first order; closed: the target's unembedding through the head."""
    magnitudes: tuple[float, ...] = (-3.0, 3.0)
    """Frobenius norms of each write, in native writes; negative ones erase along the direction."""
    last: int = 3
    """How many last tokens of the context are written at."""
    timings: tuple[Timing, ...] = ("after_token", "at_token")
    """Whether the written token itself reads the write."""
    native_writes: tuple[NativeWrite, ...] = ("value",)
    """Which native write the magnitudes count in."""
    margin: float = 0.05
    """Differences of inclusion below this are called none."""
    seed: int = 0
    """Of the random directions."""

    def __post_init__(self) -> None:
        not_empty(self, "directions", "magnitudes", "timings", "native_writes")
        at_least(self, contexts=1, prompt=1, last=1, new_tokens=1)
        if not 0 < self.margin < 1:
            raise ConfigError(f"margin {self.margin:g} is no share: give more than 0 and less than 1")
