"""Which targets, and how they are written."""

from __future__ import annotations

from dataclasses import dataclass

from writesae.config import at_least, not_empty
from writesae.errors import ConfigError
from writesae.types import DirectionKind, NativeWrite, Timing


@dataclass(frozen=True)
class InstallsConfig:
    """Write targets' directions near the end of prompts, and look whether the continuations hold them."""

    directions: tuple[DirectionKind, ...] = ("closed", "exact", "random")
    """exact: most raises the target's logit to first order; closed: the target's unembedding through the head."""
    magnitudes: tuple[float, ...] = (1.5, 3.0, 6.0)
    """Frobenius norms of each write, in native writes; negative ones write the opposite."""
    last: tuple[int, ...] = (3,)
    """How many consecutive last tokens of the prompt are written at."""
    ranks: tuple[tuple[int, int], ...] = ((100, 1000),)
    """Classes of targets by their native rank, the second excluded: 10 100 100 1000 are two classes."""
    targets: int = 1
    """Targets a prompt and class."""
    new_tokens: int = 20
    """Tokens that are generated."""
    timings: tuple[Timing, ...] = ("after_token", "at_token")
    """Whether the written token itself reads the write."""
    native_writes: tuple[NativeWrite, ...] = ("value",)
    """Which native write the magnitudes count in."""
    seed: int = 0
    """Of the targets and the random directions."""

    def __post_init__(self) -> None:
        not_empty(self, "directions", "magnitudes", "last", "ranks", "timings", "native_writes")
        at_least(self, last=1, targets=1, new_tokens=1)
        for low, high in self.ranks:
            if not 0 <= low < high:
                raise ConfigError(f"ranks {low} to {high} hold no token: give two, the second larger")
