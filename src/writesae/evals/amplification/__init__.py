"""Whether amplifying the features of a class of tokens changes how many are said (paper section 4, Table 4)."""

from __future__ import annotations

from dataclasses import dataclass

from writesae.config import at_least, checked
from writesae.errors import ConfigError
from writesae.evals.common.evaluation import Evaluation
from writesae.types import Reading, Timing


@checked
@dataclass(frozen=True)
class AmplificationConfig:
    """Amplify the features of a class of tokens, and count the tokens of the class in the continuations."""

    pattern: str = r"\n"
    """The class: tokens whose text matches this regular expression."""
    doses: tuple[float, ...] = (2.0, 5.0, 10.0)
    """Factors of the coefficients, at every token."""
    top: int = 10
    """Features a head, and as many others in the control."""
    reading: Reading = "state"
    """Where a feature of a dictionary of states fires, and what is amplified: what the state holds of it, or by
    increment what a token's own write adds to it, of the features that this raises most."""
    found_on: int = 64
    """Of the passages, the first so many are where the class's features are found; the others are continued."""
    prompt: int = 24
    """Tokens at the beginning of each of the others that are its prompt."""
    new_tokens: int = 400
    """Tokens that are generated."""
    temperature: float = 0.0
    """0 for greedy."""
    top_k: int | None = None
    """Sample from so many of the likeliest tokens; all if not said."""
    top_p: float | None = None
    """Sample from the likeliest tokens that hold this probability together; all if not said."""
    timings: tuple[Timing, ...] = ("after_token", "at_token")
    """Whether an edited token itself reads the edit."""
    seed: int = 0
    """Of the control's features, and of sampling."""

    def __post_init__(self) -> None:
        at_least(self, top=1, found_on=1, prompt=1, new_tokens=1, temperature=0)
        if self.temperature == 0 and (self.top_k is not None or self.top_p is not None):
            raise ConfigError("top_k and top_p have no effect on greedy continuations: give a temperature above 0")


amplification = Evaluation(
    "amplification",
    AmplificationConfig,
    takes="heads",
    causal=True,
    title="Does amplifying a class\u2019s features change how much of it is said?",
    intro=(
        "The features that fire most at tokens of a class, newlines unless it says otherwise, are amplified at every "
        "token of a continuation, at one head or several together, against the same number of other features."
    ),
    passages=104,
    length=256,
)
