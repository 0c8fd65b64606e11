"""Whether names can be installed or erased, more or less than ordinary words (the paper's null, with a test of it)."""

from writesae.evals.common.evaluation import Evaluation
from writesae.evals.proper_nouns.config import ProperNounsConfig

entry = Evaluation(
    "proper_nouns",
    ProperNounsConfig,
    takes="sites",
    short="Proper nouns",
    title="Can a name be installed or erased?",
    intro=(
        "Contexts end right before a name of the text, or before an ordinary word. The direction of that token is "
        "written as it is and turned round; that no difference was found is called a null only where a test excludes "
        "one."
    ),
    passages=1200,
    length=144,
)
