"""The audit that needs no dictionary: what each head of a host remembers, and what one of its writes is worth."""

from __future__ import annotations

from dataclasses import dataclass

from writesae.config import at_least, checked
from writesae.evals.common.evaluation import Evaluation
from writesae.types import Timing


@checked
@dataclass(frozen=True)
class SpectrumConfig:
    """Audit every head of a host without a dictionary: singular values, decay, what one write is worth."""

    writes: int = 40
    """Random tokens a layer."""
    timings: tuple[Timing, ...] = ("after_token",)
    """Whether the edited token reads the edited state itself. The first one chooses the head."""
    seed: int = 0
    """Of the tokens."""

    def __post_init__(self) -> None:
        at_least(self, writes=1)


spectrum = Evaluation(
    "spectrum",
    SpectrumConfig,
    takes="none",
    short="Heads",
    title="Where in the model does a write matter?",
    intro="Every recurrent head measured on the same text; no dictionary is needed.",
)
