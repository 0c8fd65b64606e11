"""Whether one write moves a target's logit the way that was predicted (paper, appendix I.5)."""

from writesae.evals.common.evaluation import Evaluation
from writesae.evals.sign.config import SignConfig

entry = Evaluation(
    "sign",
    SignConfig,
    takes="sites",
    short="Sign",
    title="Does a write move the target\u2019s logit the predicted way?",
    intro="One rank-1 matrix is written at one token of each context, and the next-token logit of the target is read.",
    passages=2000,
    length=24,
)
