"""Which atoms and firings are scored, and how."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from writesae.config import at_least
from writesae.errors import ConfigError
from writesae.evals.common.conditions import Control, check_grid
from writesae.types import Amplitude, KLDirection, NativeWrite, Timing


@dataclass(frozen=True)
class PopulationConfig:
    """Sample atoms by class and run the substitution test on a few firings of each."""

    atoms: int = 155
    """Atoms to sample, as evenly over the classes as they allow."""
    most: int = 30
    """Most firings an atom."""
    fewest: int = 5
    """Atoms with fewer firings (where a place can be scored) are refused."""
    bins: tuple[float, ...] = (-1.0, 0.0, 0.05, 0.1, 0.2, 0.4, 1.0)
    """Borders of the cosine bins."""
    timings: tuple[Timing, ...] = ("after_token", "at_token")
    """As in substitution, like all that follow: whether the edited token reads the edited state itself."""
    native_writes: tuple[NativeWrite, ...] = ()
    """Which matrix counts as the token's write; the first one classes the atoms that are sampled. Empty: all forms."""
    amplitudes: tuple[Amplitude, ...] = ("coefficient",)
    """How large what stands in its place is."""
    directions: tuple[KLDirection, ...] = ("native||patched",)
    """Of the KL divergence."""
    controls: tuple[Control, ...] = ()
    """Further replacements; not flat_svd, which needs a second dictionary."""
    horizon: int = 1
    """Scored positions, over which the KL is a mean."""
    seed: int = 0
    """Of the atoms, their firings, the random matrices and the bootstrap."""

    def __post_init__(self) -> None:
        check_grid(self)
        at_least(self, atoms=1, most=1, fewest=1, horizon=1)
        if self.most < self.fewest:
            raise ConfigError(f"at most {self.most} firings an atom, but no fewer than {self.fewest}: nothing fits")
        if len(self.bins) < 2 or any(b <= a for a, b in pairwise(self.bins)):
            raise ConfigError(f"cosine bins {self.bins} must be at least two rising borders")
        if "flat_svd" in self.controls:
            raise ConfigError(
                "population takes one dictionary, and the control flat_svd needs a second one: leave it out"
            )
