"""Whether one write moves a target's logit the way that was predicted (paper, appendix I.5)."""

from __future__ import annotations

from dataclasses import dataclass

from writesae.config import at_least, checked
from writesae.errors import ConfigError
from writesae.evals.common.conditions import Doses
from writesae.evals.common.evaluation import Evaluation


@checked
@dataclass(frozen=True)
class SignConfig(Doses):
    """Write one rank-1 matrix, and compare the sign of the target's change with what formulas say: at_token writes at
    the last token, after_token one before."""

    magnitudes: tuple[float, ...] = (0.1, 1.0, 3.0)
    """Frobenius norms of the write, in native writes of the same token."""
    ranks: tuple[int, int] = (0, 1)
    """Targets are drawn from these ranks of the native next-token distribution, the second excluded: 0 1 is the top
    token."""

    def __post_init__(self) -> None:
        at_least(self, ranks=0)
        if self.ranks[0] >= self.ranks[1]:
            raise ConfigError(f"ranks {self.ranks[0]} {self.ranks[1]} hold no token: give a larger second one")


sign = Evaluation(
    "sign",
    SignConfig,
    takes="sites",
    causal=True,
    title="Does a write move the target\u2019s logit the predicted way?",
    intro="One rank-1 matrix is written at one token of each context, and the next-token logit of the target is read.",
    passages=2000,
    length=24,
)
