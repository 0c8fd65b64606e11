"""The audit that needs no dictionary: what each head of a host remembers, and what one of its writes is worth."""

from writesae.evals.common.evaluation import Evaluation
from writesae.evals.spectrum.config import SpectrumConfig

entry = Evaluation(
    "spectrum",
    SpectrumConfig,
    takes="none",
    short="Heads",
    title="Where in the model does a write matter?",
    intro="Every recurrent head measured on the same text; no dictionary is needed.",
)
