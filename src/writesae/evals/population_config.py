"""Which atoms and firings the population test scores. Nothing heavy is imported here."""

from __future__ import annotations

from dataclasses import dataclass, field

from writesae.evals.substitution_config import SubstitutionConfig


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
