"""Features that separate a class of tokens, such as ends of sentences, from all others (paper section 4, Table 4)."""

from __future__ import annotations

from dataclasses import dataclass

from writesae.config import at_least, checked
from writesae.evals.common.evaluation import Evaluation
from writesae.types import Reading


@checked
@dataclass(frozen=True)
class BoundaryConfig:
    """Find features that separate a class of tokens, such as ends of sentences, from all others."""

    pattern: str = r"[.!?]\s*$|\n"
    """Regular expression; a token belongs to the class where it is found in the token's text."""
    reading: Reading = "state"
    """What a coefficient of a dictionary of states is: what the state holds, or by increment by how much the token's
    write (what it really adds, where that is rank 1) raises the features that it raises most, as many as are active."""
    alpha: float = 0.01
    """A feature separates where its corrected p value is below this."""
    top: int = 10
    """Features named in the summary."""

    def __post_init__(self) -> None:
        at_least(self, top=1)


boundary = Evaluation(
    "boundary",
    BoundaryConfig,
    takes="one",
    title="Which features mark a class of tokens?",
    intro="Coefficients at tokens of the class against those at all other tokens.",
)
