"""The protocol of a substitution test: everything that the paper leaves open, each with a name.

Nothing heavy is imported here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from writesae.errors import ConfigError
from writesae.evals.common.conditions import Control as Control
from writesae.evals.old.configs import at_least, not_empty
from writesae.types import KLDirection, NativeWrite, Timing

CONDITIONS = ("atom", "atom_norm", "delete", "random", "random_norm")
"""What replaces the native write: the atom at its coefficient or at the write's Frobenius norm, nothing, or a random
rank-1 matrix at the atom's coefficient or at the write's norm."""

Silent = Literal["refuse", "leave"]
"""What happens at a place where a head's dictionary does not fire while another's does."""


@dataclass(frozen=True)
class SubstitutionConfig:
    """The protocol of one substitution test."""

    timings: tuple[Timing, ...] = ("after_token", "at_token")
    """Whether the edited token reads the edited state itself."""
    native_write: NativeWrite = "delta"
    """Which matrix counts as the token's write."""
    direction: KLDirection = "native||patched"
    """Direction of the KL divergence."""
    horizon: int = 1
    """Scored positions: the first one and those after it; the KL is their mean, in nats a token."""
    controls: tuple[Control, ...] = ()
    """Further replacements beside `CONDITIONS`; each adds a record column `kl_NAME`."""
    silent: Silent = "refuse"
    """Several heads edited together: a place where one of the dictionaries does not fire is refused, or that head's
    write is left as it is there (and the place refused only where none fires)."""
    firings: int = 1000
    """Places drawn at random from the passages."""
    seed: int = 0
    """Of the places and of the random matrices."""
    memory: float | None = None
    """Memory of one batch of runs, GiB; None: 1. Changes the rounding alone."""

    def __post_init__(self) -> None:
        not_empty(self, "timings")
        at_least(self, horizon=1, firings=1)
        if self.memory is not None and self.memory <= 0:
            raise ConfigError(f"memory {self.memory} must be above 0 GiB")
