"""How well a dictionary reconstructs, and how its features share the work: no edit, one pass over the text."""

from writesae.evals.common.evaluation import Evaluation
from writesae.evals.quality.config import QualityConfig

entry = Evaluation(
    "quality",
    QualityConfig,
    takes="one",
    short="Quality",
    title="How well does the dictionary reconstruct?",
    intro="One pass over the text without any edit: what is explained, and how features share the work.",
)
