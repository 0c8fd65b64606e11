"""Features that separate a class of tokens, such as ends of sentences, from all others (paper section 4, Table 4)."""

from writesae.evals.boundary.config import BoundaryConfig
from writesae.evals.common.evaluation import Evaluation

entry = Evaluation(
    "boundary",
    BoundaryConfig,
    takes="one",
    short="Boundary",
    title="Which features mark a class of tokens?",
    intro="Coefficients at tokens of the class against those at all other tokens.",
)
