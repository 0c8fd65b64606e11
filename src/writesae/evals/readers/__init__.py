"""Which later heads read an atom, against how much they read a random write of the same size (Table 1, I.2)."""

from writesae.evals.common.evaluation import Evaluation
from writesae.evals.readers.config import ReadersConfig

entry = Evaluation(
    "readers",
    ReadersConfig,
    takes="one",
    short="Readers",
    title="Which later heads read an atom?",
    intro="The atom, at the native write\u2019s norm, is added to the state, and the change in every later head\u2019s "
    "output compared with that by random writes of the same size.",
)
