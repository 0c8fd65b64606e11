"""What it costs to replace states by their reconstruction: perplexity of the text that follows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from writesae.config import checked
from writesae.evals.common.evaluation import Evaluation

Scope = Literal["layer", "head"]
"""Which states are replaced together."""


@checked
@dataclass(frozen=True)
class FidelityConfig:
    """Replace states by their reconstruction after a native prefix, and score the text that follows."""

    prefix: float = 0.5
    """Share of each passage that runs before the states are replaced."""
    scopes: tuple[Scope, ...] = ()
    """Beside all dictionaries at once, also replace those of each layer together, or of each head alone."""
    seed: int = 0
    """Of the bootstrap."""


fidelity = Evaluation(
    "fidelity",
    FidelityConfig,
    takes="heads",
    causal=True,
    title="What do reconstructed states cost?",
    intro="A prefix runs natively; then the states become their reconstruction (or zero, for scale), and the text that "
    "follows is scored.",
)
