"""What counts as dense, and the bins of the histogram."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from writesae.errors import ConfigError


@dataclass(frozen=True)
class QualityConfig:
    """Measure the reconstruction, and how features share the work, in one pass without edits."""

    dense: float = 0.1
    """A feature that fires at more than this share of tokens is dense."""
    edges: tuple[float, ...] = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    """Borders of the frequency histogram; a frequency of 1 belongs to the last bin."""

    def __post_init__(self) -> None:
        if len(self.edges) < 2 or any(b <= a for a, b in pairwise(self.edges)):
            raise ConfigError(f"edges {self.edges} of the histogram must be at least two and rise")
