"""Which later heads read an atom, against how much they read a random write of the same size (Table 1, I.2)."""

from __future__ import annotations

from dataclasses import dataclass

from writesae.config import checked
from writesae.evals.common.conditions import Atoms
from writesae.evals.common.evaluation import Evaluation


@checked
@dataclass(frozen=True)
class ReadersConfig(Atoms):
    """Add atoms to the state and see which later heads' outputs change, against random writes of the same size: at the
    edited token itself where that reads the edited state, else at the one after it."""


readers = Evaluation(
    "readers",
    ReadersConfig,
    takes="one",
    causal=True,
    title="Which later heads read an atom?",
    intro="The atom, at the native write\u2019s norm, is added to the state, and the change in every later head\u2019s "
    "output compared with that by random writes of the same size.",
)
