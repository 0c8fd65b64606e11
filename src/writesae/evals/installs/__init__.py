"""Whether a token can be made to appear by writing its direction near a prompt's end (paper, section 4)."""

from writesae.evals.common.evaluation import Evaluation
from writesae.evals.installs.config import InstallsConfig

entry = Evaluation(
    "installs",
    InstallsConfig,
    takes="sites",
    short="Installs",
    title="Can a token be installed?",
    intro=(
        "The direction of a target token is written at the last tokens of each prompt, and the greedy continuation is "
        "searched for the target."
    ),
    passages=300,
    length=24,
)
