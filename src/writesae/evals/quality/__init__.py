"""How well a dictionary reconstructs, and how its features share the work: no edit, one pass over the text."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from writesae.config import checked
from writesae.errors import ConfigError
from writesae.evals.common.evaluation import Evaluation


@checked
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


quality = Evaluation(
    "quality",
    QualityConfig,
    takes="one",
    title="How well does the dictionary reconstruct?",
    intro="One pass over the text without any edit: what is explained, and how features share the work.",
)
