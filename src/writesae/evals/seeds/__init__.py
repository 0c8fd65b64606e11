"""Do dictionaries of several seeds find the same classes and the same atoms? (Paper section 3.1, Table 16.)"""

from __future__ import annotations

from dataclasses import dataclass

from writesae.config import at_least, checked
from writesae.evals.common.conditions import Forms
from writesae.evals.common.evaluation import Evaluation


@checked
@dataclass(frozen=True)
class SeedsConfig(Forms):
    """Compare dictionaries of one head: counts by class, and how many atoms they share."""

    match: float = 0.9
    """Absolute cosine above which two atoms are the same."""
    minimum: int = 1
    """Fewest firings for an atom to be classed."""

    def __post_init__(self) -> None:
        at_least(self, minimum=1)


seeds = Evaluation(
    "seeds",
    SeedsConfig,
    takes="seeds",
    title="Do other seeds find the same features?",
    intro=(
        "Dictionaries of one head that differ in their seed alone: counts of every class, and for each atom the atom "
        "of another dictionary that is most like it."
    ),
)
