"""What it costs to replace states by their reconstruction: perplexity of the text that follows."""

from writesae.evals.common.evaluation import Evaluation
from writesae.evals.fidelity.config import FidelityConfig

entry = Evaluation(
    "fidelity",
    FidelityConfig,
    takes="heads",
    short="Fidelity",
    title="What do reconstructed states cost?",
    intro="A prefix runs natively; then the states become their reconstruction (or zero, for scale), and the text that "
    "follows is scored.",
)
