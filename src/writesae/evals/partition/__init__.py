"""Registers, bundles and nulls: which atoms look like the writes they fire on (paper section 3.1, Table 11)."""

from writesae.evals.common.evaluation import Evaluation
from writesae.evals.partition.config import PartitionConfig

entry = Evaluation(
    "partition",
    PartitionConfig,
    takes="one",
    short="Partition",
    title="Which features look like writes?",
    intro=(
        "Every feature\u2019s median cosine to the native writes it fires on, a mixture of two Gaussians over all "
        "features, and the classes that it gives: registers look like writes, bundles do not, nulls never fire."
    ),
)
