"""Whether a token can be made to appear by writing its direction near a prompt's end (paper, section 4)."""

from __future__ import annotations

from dataclasses import dataclass

from writesae.config import at_least, checked
from writesae.errors import ConfigError
from writesae.evals.common.conditions import Continued
from writesae.evals.common.evaluation import Evaluation


@checked
@dataclass(frozen=True)
class InstallsConfig(Continued):
    """Write targets' directions near the end of prompts, and look whether the continuations hold them."""

    last: tuple[int, ...] = (3,)
    """How many consecutive last tokens of the prompt are written at."""
    ranks: tuple[tuple[int, int], ...] = ((100, 1000),)
    """Classes of targets by their native rank, the second excluded: 10 100 100 1000 are two classes."""
    targets: int = 1
    """Targets a prompt and class."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, last=1, targets=1)
        for low, high in self.ranks:
            if not 0 <= low < high:
                raise ConfigError(f"ranks {low} to {high} hold no token: give two, the second larger")


installs = Evaluation(
    "installs",
    InstallsConfig,
    takes="sites",
    causal=True,
    title="Can a token be installed?",
    intro=(
        "The direction of a target token is written at the last tokens of each prompt, and the greedy continuation is "
        "searched for the target."
    ),
    passages=300,
    length=24,
)
