"""Whether names can be installed or erased, more or less than ordinary words (the paper's null, with a test of it)."""

from __future__ import annotations

from dataclasses import dataclass

from writesae.config import at_least, checked
from writesae.errors import ConfigError
from writesae.evals.common.conditions import Continued
from writesae.evals.common.evaluation import Evaluation


@checked
@dataclass(frozen=True)
class ProperNounsConfig(Continued):
    """Write the direction of the name, or the ordinary word, that comes next in the text."""

    magnitudes: tuple[float, ...] = (-3.0, 3.0)
    """Frobenius norms of each write, in native writes; negative ones erase along the direction."""
    contexts: int = 300
    """Contexts a class, each of its own passage."""
    prompt: int = 24
    """Tokens of a context."""
    last: int = 3
    """How many last tokens of the context are written at."""
    margin: float = 0.05
    """Differences of inclusion below this are called none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, contexts=1, prompt=1, last=1)
        if not 0 < self.margin < 1:
            raise ConfigError(f"margin {self.margin:g} is no share: give more than 0 and less than 1")


proper_nouns = Evaluation(
    "proper_nouns",
    ProperNounsConfig,
    takes="sites",
    causal=True,
    title="Can a name be installed or erased?",
    intro=(
        "Contexts end right before a name of the text, or before an ordinary word. The direction of that token is "
        "written as it is and turned round; that no difference was found is called a null only where a test excludes "
        "one."
    ),
    passages=1200,
    length=144,
)
