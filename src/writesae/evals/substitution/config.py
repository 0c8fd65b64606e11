"""Everything that the paper leaves open about the substitution test, each with a name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from writesae.config import at_least
from writesae.evals.common.conditions import Control, check_grid
from writesae.types import Amplitude, KLDirection, NativeWrite, Timing

Silent = Literal["refuse", "leave"]
"""What happens at a place where a head's dictionary does not fire while another's does."""


@dataclass(frozen=True)
class SubstitutionConfig:
    """Put one atom in the place of one write and see how far the next tokens move, against deletion and controls."""

    timings: tuple[Timing, ...] = ("after_token", "at_token")
    """Whether the edited token reads the edited state itself."""
    native_writes: tuple[NativeWrite, ...] = ()
    """Which matrix counts as the token's write; empty: all that the head has, delta and value where they differ."""
    amplitudes: tuple[Amplitude, ...] = ("coefficient", "norm")
    """How large what stands in its place is: at the atom's coefficient, or at the write's Frobenius norm."""
    directions: tuple[KLDirection, ...] = ("native||patched",)
    """Direction of the KL divergence."""
    controls: tuple[Control, ...] = ()
    """Further replacements beside the atom, deletion and a random matrix; each adds columns."""
    horizon: int = 1
    """Scored positions: the first one and those after it; the KL is their mean, in nats a token."""
    silent: Silent = "refuse"
    """Several heads edited together: a place where one of the dictionaries does not fire is refused, or that head's
    write is left as it is there (and the place refused only where none fires)."""
    firings: int = 1000
    """Places drawn at random from the passages."""
    seed: int = 0
    """Of the places and of the random matrices."""

    def __post_init__(self) -> None:
        check_grid(self)
        at_least(self, horizon=1, firings=1)
