"""The substitution test atom by atom: alive atoms sampled by class, a few firings each (paper F.2 and H)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from writesae.config import at_least, checked
from writesae.errors import ConfigError
from writesae.evals.common.conditions import Grid
from writesae.evals.common.evaluation import Evaluation
from writesae.types import Amplitude


@checked
@dataclass(frozen=True)
class PopulationConfig(Grid):
    """Sample atoms by class and run the substitution test on a few firings of each. The first form of the native write
    classes the atoms that are sampled; the control flat_svd needs a second dictionary, and is refused."""

    amplitudes: tuple[Amplitude, ...] = ("coefficient",)
    """As in substitution: how large what stands in the write's place is."""
    atoms: int = 155
    """Atoms to sample, as evenly over the classes as they allow."""
    most: int = 30
    """Most firings an atom."""
    fewest: int = 5
    """Atoms with fewer firings (where a place can be scored) are refused."""
    bins: tuple[float, ...] = (-1.0, 0.0, 0.05, 0.1, 0.2, 0.4, 1.0)
    """Borders of the cosine bins."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, atoms=1, most=1, fewest=1)
        if self.most < self.fewest:
            raise ConfigError(f"at most {self.most} firings an atom, but no fewer than {self.fewest}: nothing fits")
        if len(self.bins) < 2 or any(b <= a for a, b in pairwise(self.bins)):
            raise ConfigError(f"cosine bins {self.bins} must be at least two rising borders")
        if "flat_svd" in self.controls:
            raise ConfigError(
                "population takes one dictionary, and the control flat_svd needs a second one: leave it out"
            )


population = Evaluation(
    "population",
    PopulationConfig,
    takes="one",
    causal=True,
    title="How many atoms can stand in for writes?",
    intro=(
        "The substitution test for a sample of atoms one by one: for each, the share of its firings where it is closer "
        "to the native model than deleting the write, and whether atoms that look like writes do better."
    ),
    pairs=("write-value", "state"),
)
