"""Can one atom stand in for one write? (Paper section 3.2 and Table 2.)"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from writesae.config import at_least, checked
from writesae.errors import ConfigError
from writesae.evals.common.conditions import Grid
from writesae.evals.common.evaluation import Evaluation

PUBLISHED = 0.924
"""How often the published atom beats deletion, of 4,851 firings (section 3.2, Table 2)."""
Silent = Literal["refuse", "leave"]
"""What happens at a place where a head's dictionary does not fire while another's does."""
Choose = Literal["tokens", "features"]
"""What is drawn: tokens, or features whose firings are scored."""
Drawn = Literal["by_firings", "evenly", "most"]
"""Features are drawn in proportion to how often they fire, all alike, or are those that fire most."""


@checked
@dataclass(frozen=True)
class SubstitutionConfig(Grid):
    """Put one atom in the place of one write and see how far the next tokens move, against deletion and controls."""

    choose: Choose = "tokens"
    """What is drawn at random: tokens, each of which is scored with the feature that the reading picks there; or
    features, whose firings are scored (in the state: where they are active; by increment: where the write raises
    them most). Intervals resample what was drawn, passages or features."""
    firings: int = 1000
    """Tokens that are drawn."""
    atoms: int = 18
    """Features that are drawn."""
    drawn: Drawn = "by_firings"
    """Features are drawn in proportion to their firings in the passages, evenly, or those that fire most."""
    among: Literal["all", "register"] = "all"
    """Features of which they are drawn: all, or those whose cosine to the first form of the write makes them
    registers, as in `partition`."""
    features: tuple[int, ...] = ()
    """These features instead of drawn ones."""
    most: int = 300
    """Most firings of a feature, drawn at random."""
    fewest: int = 5
    """Features with fewer firings are not drawn."""
    silent: Silent = "refuse"
    """Several heads edited together: a place where one of the dictionaries does not fire is refused, or that head's
    write is left as it is there (and the place refused only where none fires)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, firings=1, atoms=1, features=0, most=1, fewest=1)
        if self.features and self.choose == "tokens":
            raise ConfigError('features were named, but tokens are drawn: say choose="features" (--choose features)')
        if self.most < self.fewest:
            raise ConfigError(f"at most {self.most} firings a feature, but no fewer than {self.fewest}: nothing fits")

    @property
    def idle(self) -> tuple[tuple[str, ...], str]:
        """Fields without effect on what is drawn, and when that is and which have one, in words."""
        if self.choose == "tokens":
            return ("atoms", "drawn", "among", "most", "fewest"), (
                "where tokens are drawn: say how many with --firings, or draw features with --choose features"
            )
        if self.features:
            return ("firings", "atoms", "drawn", "among"), (
                "on features that are named: --most and --fewest say how many firings of each"
            )
        return ("firings",), "where features are drawn: --atoms says how many, --most how many firings of each"


TEXT = SubstitutionConfig(
    timings=("after_token",), native_writes=("value",), readings=("state",), amplitudes=("coefficient",),
    directions=("patched||native",), controls=("random_coefficient",), choose="features", among="register",
)  # fmt: skip
PRESETS = {
    "paper-text": TEXT,
    "paper-appendix": replace(TEXT, timings=("at_token",), amplitudes=("norm",), controls=("random_norm",)),
    "paper-script": replace(TEXT, amplitudes=("norm",), directions=("native||patched",), controls=("other_atom",)),
    "grid": SubstitutionConfig(
        directions=("native||patched", "patched||native"), controls=("random_coefficient", "random_norm", "other_atom")
    ),
}
"""The published test as its three accounts tell it (MATH.md section 8): the text (pages 3 and 4: the atom and a random
matrix at the coefficient, the cache edited after the token), the appendix (page 26: at the write's norm, and the state
runs on with what took the write's place), the released script (a silent atom instead of a random matrix, KL from the
native run). All take the firings of 18 registers, at most 300 each. `grid` is every combination in one run."""

substitution = Evaluation(
    "substitution",
    SubstitutionConfig,
    takes="heads",
    causal=True,
    title="Can one atom stand in for one write?",
    intro=(
        "At a firing, the head\u2019s write is replaced by the atom that fires there, deleted, or replaced by a random "
        "matrix, and the next-token distribution is compared with the native one. The atom wins where it is closer "
        "than deletion."
    ),
    pairs=("write-value", "state"),
    second=True,
    presets=PRESETS,
)
