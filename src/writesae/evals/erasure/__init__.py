"""What taking out a feature's write does to the token it stands for (paper section 4, Tables 18 and 19)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from writesae.config import at_least, checked
from writesae.evals.common.conditions import Fired
from writesae.evals.common.evaluation import Evaluation
from writesae.types import NativeWrite


@checked
@dataclass(frozen=True)
class ErasureConfig(Fired):
    """Take out the native writes on which a feature fires, and follow the token that the feature stands for."""

    native_writes: tuple[NativeWrite, ...] = ("delta", "value")
    """What is taken out: what the token really adds, or b k v^T."""
    features: tuple[int, ...] = ()
    """Features; the one that fires most if none is named."""
    doses: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0)
    """How many times the write is taken out, or added where the feature does not fire."""
    firings: int = 150
    """At most so many firings a feature, and as many other places, drawn at random."""
    follow: Literal["closed", "measured"] = "closed"
    """How the followed token is found: closed, the one whose unembedding the atom points at through the head; measured,
    the one that loses most on one half of the passages, and it is followed on the other half."""
    token: int | None = None
    """The followed token, where it is known."""

    def __post_init__(self) -> None:
        at_least(self, features=0, firings=1)


erasure = Evaluation(
    "erasure",
    ErasureConfig,
    takes="one",
    causal=True,
    title="What does taking out a feature\u2019s write do to its token?",
    intro=(
        "At firings of a feature the native write is taken out, a dose of it; as a control, the same writes are added "
        "where the feature does not fire. What follows is the log probability of the token that the feature stands for."
    ),
    passages=64,
    length=256,
)
