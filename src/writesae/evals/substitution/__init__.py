"""Can one atom stand in for one write? (Paper section 3.2 and Table 2.)"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from writesae.config import at_least
from writesae.evals.common.conditions import Grid
from writesae.evals.common.evaluation import Evaluation

Silent = Literal["refuse", "leave"]
"""What happens at a place where a head's dictionary does not fire while another's does."""


@dataclass(frozen=True)
class SubstitutionConfig(Grid):
    """Put one atom in the place of one write and see how far the next tokens move, against deletion and controls."""

    silent: Silent = "refuse"
    """Several heads edited together: a place where one of the dictionaries does not fire is refused, or that head's
    write is left as it is there (and the place refused only where none fires)."""
    firings: int = 1000
    """Places drawn at random from the passages."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, firings=1)


substitution = Evaluation(
    "substitution",
    SubstitutionConfig,
    takes="heads",
    title="Can one atom stand in for one write?",
    intro=(
        "At a firing, the head\u2019s write is replaced by the atom that fires there, deleted, or replaced by a random "
        "matrix, and the next-token distribution is compared with the native one. The atom wins where it is closer "
        "than deletion."
    ),
    pairs=("write-value", "state"),
    second=True,
)
