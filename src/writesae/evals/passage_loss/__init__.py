"""Delete or replace every write on which a class of atoms fires, over whole passages (paper section 3.2, Fig. 2b)."""

from writesae.evals.common.evaluation import Evaluation
from writesae.evals.passage_loss.config import PassageLossConfig

entry = Evaluation(
    "passage_loss",
    PassageLossConfig,
    takes="one",
    short="Passage loss",
    title="What if every such write is replaced?",
    intro="Wherever the top feature of a token belongs to the class, what the head then writes is deleted or replaced, "
    "over whole passages.",
)
