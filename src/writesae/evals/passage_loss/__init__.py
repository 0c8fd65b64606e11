"""Delete or replace every write on which a class of atoms fires, over whole passages (paper section 3.2, Fig. 2b)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from writesae.config import at_least, checked
from writesae.evals.common.conditions import Fired
from writesae.evals.common.evaluation import Evaluation
from writesae.types import Amplitude

AtomClass = Literal["register", "bundle"]
"""The two classes of `partition` that fire."""


@checked
@dataclass(frozen=True)
class PassageLossConfig(Fired):
    """Delete or replace every write on which a class of atoms fires, over whole passages."""

    kind: AtomClass = "register"
    """The class, as `partition` finds it on the same passages, by the cosine to the write that is replaced."""
    features: tuple[int, ...] = ()
    """These features instead of a class."""
    amplitudes: tuple[Amplitude, ...] = ("coefficient", "norm")
    """How large the atom or a random matrix is: at the atom's coefficient, or at the native write's norm."""

    def __post_init__(self) -> None:
        at_least(self, features=0)


passage_loss = Evaluation(
    "passage_loss",
    PassageLossConfig,
    takes="one",
    causal=True,
    title="What if every such write is replaced?",
    intro="Wherever the top feature of a token belongs to the class, what the head then writes is deleted or replaced, "
    "over whole passages.",
)
