"""Registers, bundles and nulls: which atoms look like the writes they fire on (paper section 3.1, Table 11)."""

from __future__ import annotations

from dataclasses import dataclass

from writesae.config import at_least, checked
from writesae.evals.common.conditions import Forms
from writesae.evals.common.evaluation import Evaluation
from writesae.types import Reading


@checked
@dataclass(frozen=True)
class PartitionConfig(Forms):
    """Class every feature by how much it looks like the writes it fires on: registers, bundles, nulls."""

    reading: Reading = "state"
    """Where a feature of a dictionary of states fires: at every token in whose state it is active, or by increment only
    where it is the one that the token's write, in the first of the forms, raises most."""
    minimum: int = 1
    """Fewest firings for an atom to be classed."""
    thresholds: tuple[float, ...] = (0.05, 0.1, 0.2, 0.3, 0.5)
    """Cosines for the sweep that uses no mixture."""
    ks: tuple[int, ...] = (1, 2, 4, 8, 16)
    """Sweep: only the so many largest coefficients of a token count as firings."""

    def __post_init__(self) -> None:
        at_least(self, minimum=1, ks=1)


partition = Evaluation(
    "partition",
    PartitionConfig,
    takes="one",
    title="Which features look like writes?",
    intro=(
        "Every feature\u2019s median cosine to the native writes it fires on, a mixture of two Gaussians over all "
        "features, and the classes that it gives: registers look like writes, bundles do not, nulls never fire."
    ),
)
