"""The substitution test atom by atom: alive atoms sampled by class, a few firings each (paper F.2 and H)."""

from writesae.evals.common.evaluation import Evaluation
from writesae.evals.population.config import PopulationConfig

entry = Evaluation(
    "population",
    PopulationConfig,
    takes="one",
    short="Population",
    title="How many atoms can stand in for writes?",
    intro=(
        "The substitution test for a sample of atoms one by one: for each, the share of its firings where it is closer "
        "to the native model than deleting the write, and whether atoms that look like writes do better."
    ),
    pairs=("write-value", "state"),
)
