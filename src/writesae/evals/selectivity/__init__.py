"""Does an atom move its own tokens? Overlap of the most moved tokens with those of matched directions (App. D, I.1)."""

from __future__ import annotations

from dataclasses import dataclass

from writesae.config import at_least, checked
from writesae.evals.common.conditions import Atoms
from writesae.evals.common.evaluation import Evaluation


@checked
@dataclass(frozen=True)
class SelectivityConfig(Atoms):
    """Compare the tokens that an atom moves most with those that matched random directions move most."""

    atoms: int = 48
    """Atoms, those that fire most often."""
    firings: int = 8
    """Firings of each, drawn at random; atoms with fewer are refused."""
    top: int = 32
    """K, the most moved tokens that are compared."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, top=1)


selectivity = Evaluation(
    "selectivity",
    SelectivityConfig,
    takes="one",
    causal=True,
    title="Does an atom move tokens of its own?",
    intro="The atom, a random rank-1 matrix and one orthogonal to the atom, all of the native write\u2019s norm, are "
    "added in turn, and the tokens that each moves most are compared.",
)
