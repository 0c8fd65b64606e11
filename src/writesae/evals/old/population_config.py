"""Which atoms and firings the population test scores. Nothing heavy is imported here."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

from writesae.errors import ConfigError
from writesae.evals.old.configs import at_least
from writesae.evals.old.substitution_config import SubstitutionConfig


@dataclass(frozen=True)
class PopulationConfig:
    """Which atoms and firings are scored, and how."""

    atoms: int = 155
    """Atoms to sample, as evenly over the classes as they allow."""
    most: int = 30
    """Most firings an atom."""
    fewest: int = 5
    """Atoms with fewer firings (where a place can be scored) are refused."""
    protocol: SubstitutionConfig = field(default_factory=lambda: SubstitutionConfig(timings=("after_token",)))
    """Timing, native write, KL direction, controls, horizon and memory of the test; its `firings` is not used."""
    bins: tuple[float, ...] = (-1.0, 0.0, 0.05, 0.1, 0.2, 0.4, 1.0)
    """Borders of the cosine bins."""
    seed: int = 0

    def __post_init__(self) -> None:
        at_least(self, atoms=1, most=1, fewest=1)
        if self.most < self.fewest:
            raise ConfigError(f"at most {self.most} firings an atom, but no fewer than {self.fewest}: nothing fits")
        if len(self.bins) < 2 or any(b <= a for a, b in pairwise(self.bins)):
            raise ConfigError(f"cosine bins {self.bins} must be at least two rising borders")
