"""Can one atom stand in for one write? (Paper section 3.2 and Table 2.)"""

from writesae.evals.common.evaluation import Evaluation
from writesae.evals.substitution.config import SubstitutionConfig

entry = Evaluation(
    "substitution",
    SubstitutionConfig,
    takes="heads",
    short="Substitution",
    title="Can one atom stand in for one write?",
    intro=(
        "At a firing, the head\u2019s write is replaced by the atom that fires there, deleted, or replaced by a random "
        "matrix, and the next-token distribution is compared with the native one. The atom wins where it is closer "
        "than deletion."
    ),
    pairs=("write-value", "state"),
    second=True,
)
