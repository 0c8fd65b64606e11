"""What taking out a feature's write does to the token it stands for (paper section 4, Tables 18 and 19)."""

from writesae.evals.common.evaluation import Evaluation
from writesae.evals.erasure.config import ErasureConfig

entry = Evaluation(
    "erasure",
    ErasureConfig,
    takes="one",
    short="Erasure",
    title="What does taking out a feature\u2019s write do to its token?",
    intro=(
        "At firings of a feature the native write is taken out, a dose of it; as a control, the same writes are added "
        "where the feature does not fire. What follows is the log probability of the token that the feature stands for."
    ),
    passages=64,
    length=256,
)
