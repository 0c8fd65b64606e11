"""Does a formula say how a rank-1 write moves the logits? Three predictors beside the measured change."""

from writesae.evals.common.evaluation import Evaluation
from writesae.evals.logit_shift.config import LogitShiftConfig

entry = Evaluation(
    "logit_shift",
    LogitShiftConfig,
    takes="one",
    short="Logit shift",
    title="Can a formula say what a write does?",
    intro="A small rank-1 write is added after a token and the change of later logits measured. Closed form: decays, "
    "read, output projection, unembedding. Direct path: the same with erase terms and the norms\u2019 Jacobians. Exact "
    "first order: all of that through every layer above.",
)
