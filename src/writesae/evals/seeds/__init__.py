"""Do dictionaries of several seeds find the same classes and the same atoms? (Paper section 3.1, Table 16.)"""

from writesae.evals.common.evaluation import Evaluation
from writesae.evals.seeds.config import SeedsConfig

entry = Evaluation(
    "seeds",
    SeedsConfig,
    takes="seeds",
    short="Seeds",
    title="Do other seeds find the same features?",
    intro=(
        "Dictionaries of one head that differ in their seed alone: counts of every class, and for each atom the atom "
        "of another dictionary that is most like it."
    ),
)
