"""Whether amplifying the features of a class of tokens changes how many are said (paper section 4, Table 4)."""

from writesae.evals.amplification.config import AmplificationConfig
from writesae.evals.common.evaluation import Evaluation

entry = Evaluation(
    "amplification",
    AmplificationConfig,
    takes="heads",
    short="Amplification",
    title="Does amplifying a class\u2019s features change how much of it is said?",
    intro=(
        "The features that fire most at tokens of a class, newlines unless it says otherwise, are amplified at every "
        "token of a continuation, at one head or several together, against the same number of other features."
    ),
    passages=104,
    length=256,
)
