"""Do dictionaries of several seeds find the same classes and the same atoms? (Paper section 3.1, Table 16.)"""

from __future__ import annotations

from dataclasses import dataclass

from writesae.config import at_least, no_repeats
from writesae.evals.common.evaluation import Evaluation
from writesae.types import NativeWrite


@dataclass(frozen=True)
class SeedsConfig:
    """Compare dictionaries of one head: counts by class, and how many atoms they share."""

    match: float = 0.9
    """Absolute cosine above which two atoms are the same."""
    native_writes: tuple[NativeWrite, ...] = ()
    """The matrix that classes atoms; empty: all that the head has, delta and value where they differ."""
    minimum: int = 1
    """Fewest firings for an atom to be classed."""
    seed: int = 0
    """Of the starts of the mixture that classes atoms."""

    def __post_init__(self) -> None:
        no_repeats(self, "native_writes")
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
