"""Portraits of a dictionary's atoms: where they fire, what they look like, what they do to the model."""

from __future__ import annotations

from dataclasses import dataclass

from writesae.config import at_least, checked
from writesae.errors import ConfigError
from writesae.evals.common.evaluation import Evaluation
from writesae.types import NativeWrite, Reading, Timing


@checked
@dataclass(frozen=True)
class AtomsConfig:
    """Describe the atoms that fire: contexts, rates, cosines, effects on the model, neighbours."""

    atoms: int = 0
    """So many, those with the largest summed coefficients; 0 for all that fire."""
    features: tuple[int, ...] = ()
    """These atoms instead."""
    quantiles: tuple[float, ...] = (1.0, 0.75, 0.5, 0.25)
    """Where in an atom's activations its contexts are taken: 1 is the strongest."""
    contexts: int = 3
    """Contexts at each quantile, in distinct passages."""
    before: int = 16
    """Tokens of a context before the firing."""
    after: int = 6
    """Tokens after it."""
    firings: int = 6
    """Firings of each atom whose effects are measured, drawn at random."""
    tokens: int = 8
    """Promoted and suppressed tokens."""
    neighbours: int = 5
    """Nearest and co-firing atoms."""
    native_write: NativeWrite = "delta"
    """Which matrix counts as the token's write."""
    reading: Reading = "state"
    """Where a feature of a dictionary of states fires: where it is active in the state, or where it is the one that the
    token's write raises most (increment)."""
    timing: Timing = "after_token"
    """Whether the edited token reads the edited state itself."""
    seed: int = 0
    """Of the firings that are measured and the random matrices."""

    def __post_init__(self) -> None:
        at_least(self, atoms=0, features=0, contexts=1, before=0, after=0, firings=1, tokens=1, neighbours=1)
        if not all(0 <= q <= 1 for q in self.quantiles):
            raise ConfigError(f"quantiles {self.quantiles} must lie between 0 and 1")


atoms = Evaluation(
    "atoms",
    AtomsConfig,
    takes="one",
    title="What are the atoms, in the text that sets them off?",
    intro=(
        "An atom is a rank-1 matrix v w^T: v says under which keys it is stored, w what a reader gets back. Contexts "
        "stand at quantiles of its activation, not only at the top; tokens are those whose logits it moves most."
    ),
    pairs=("write-value", "state"),
)
