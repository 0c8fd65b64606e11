"""Portraits of a dictionary's atoms: where they fire, what they look like, what they do to the model."""

from writesae.evals.atoms.config import AtomsConfig
from writesae.evals.common.evaluation import Evaluation

entry = Evaluation(
    "atoms",
    AtomsConfig,
    takes="one",
    short="Atoms",
    title="What are the atoms, in the text that sets them off?",
    intro=(
        "An atom is a rank-1 matrix v w^T: v says under which keys it is stored, w what a reader gets back. Contexts "
        "stand at quantiles of its activation, not only at the top; tokens are those whose logits it moves most."
    ),
    pairs=("write-value", "state"),
)
