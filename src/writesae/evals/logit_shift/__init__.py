"""Does a formula say how a rank-1 write moves the logits? Three predictors beside the measured change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from writesae.config import at_least, checked
from writesae.errors import ConfigError
from writesae.evals.common.conditions import Ways
from writesae.evals.common.evaluation import Evaluation
from writesae.types import NativeWrite, Reading

Precision = Literal["auto", "float32", "float64"]
"""`float32`: the host as it was loaded. `float64`: a copy of it in which every number has 64 bits. `auto`: the second
where the rounding of the first hides an effect at the smallest epsilon and the copy is not too large."""


@checked
@dataclass(frozen=True)
class LogitShiftConfig(Ways):
    """Add single atoms to the state and compare the logits' change with what three formulas predict."""

    native_writes: tuple[NativeWrite, ...] = ()
    """The form of the native write whose median norm is the unit of the sizes; empty: delta, or value where the head
    has no delta write."""
    atoms: int = 50
    """Atoms, those with the largest summed coefficients."""
    reading: Reading = "state"
    """Of a dictionary of states, what is summed: coefficients in the state, or by increment, at every token, how much
    its write (in the first of the forms) raises the feature that it raises most."""
    features: tuple[int, ...] = ()
    """These atoms instead."""
    places: int = 32
    """Passages, one write each, at a random token."""
    epsilons: tuple[float, ...] = (0.03, 0.1, 0.3, 1.0)
    """Sizes of the write, in median native writes."""
    horizons: tuple[int, ...] = (1, 4)
    """Where the logits are read: 1 is the first scored position (the next token's step under after_token, the edited
    token's own under at_token), 2 the one after it."""
    ranks: tuple[int, ...] = (0, 9, 99)
    """Which tokens, by their rank in the native distribution there (0 is the most likely one)."""
    precision: Precision = "auto"
    """Numbers of the host: as loaded (float32), a 64-bit copy (float64; takes 8 bytes a parameter), or that copy only
    where rounding hides an effect (auto)."""

    def __post_init__(self) -> None:
        at_least(self, atoms=1, features=0, places=1, horizons=1, ranks=0)
        if any(epsilon <= 0 for epsilon in self.epsilons):
            raise ConfigError(f"epsilons {self.epsilons} must be above 0")


logit_shift = Evaluation(
    "logit_shift",
    LogitShiftConfig,
    takes="one",
    causal=True,
    title="Can a formula say what a write does?",
    intro="A small rank-1 write is added after a token and the change of later logits measured. Closed form: decays, "
    "read, output projection, unembedding. Direct path: the same with erase terms and the norms\u2019 Jacobians. Exact "
    "first order: all of that through every layer above.",
)
