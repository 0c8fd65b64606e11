"""What is written, how large and when, and whose logit is read."""

from __future__ import annotations

from dataclasses import dataclass

from writesae.config import at_least, not_empty
from writesae.errors import ConfigError
from writesae.types import DirectionKind, NativeWrite, Timing


@dataclass(frozen=True)
class SignConfig:
    """Write one rank-1 matrix, and compare the sign of the target's change with what formulas say."""

    directions: tuple[DirectionKind, ...] = ("closed", "exact", "random")
    """closed: the query that reads it, and the target's unembedding through the head; exact: most raises the target's
    logit to first order; random: a random one."""
    magnitudes: tuple[float, ...] = (0.1, 1.0, 3.0)
    """Frobenius norms of the write, in native writes of the same token."""
    timings: tuple[Timing, ...] = ("after_token", "at_token")
    """Whether the written token itself reads the write: at_token writes at the last token, after_token one before."""
    native_writes: tuple[NativeWrite, ...] = ("value",)
    """Which native write the magnitudes count in."""
    ranks: tuple[int, int] = (0, 1)
    """Targets are drawn from these ranks of the native next-token distribution, the second excluded: 0 1 is the top
    token."""
    seed: int = 0
    """Of the targets and the random directions."""

    def __post_init__(self) -> None:
        not_empty(self, "directions", "magnitudes", "timings", "native_writes")
        at_least(self, ranks=0)
        if self.ranks[0] >= self.ranks[1]:
            raise ConfigError(f"ranks {self.ranks[0]} {self.ranks[1]} hold no token: give a larger second one")
