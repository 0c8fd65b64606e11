"""Does an atom move its own tokens? Overlap of the most moved tokens with those of matched directions (App. D, I.1)."""

from writesae.evals.common.evaluation import Evaluation
from writesae.evals.selectivity.config import SelectivityConfig

entry = Evaluation(
    "selectivity",
    SelectivityConfig,
    takes="one",
    short="Selectivity",
    title="Does an atom move tokens of its own?",
    intro="The atom, a random rank-1 matrix and one orthogonal to the atom, all of the native write\u2019s norm, are "
    "added in turn, and the tokens that each moves most are compared.",
)
