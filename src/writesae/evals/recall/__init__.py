"""Facts whose tokens, question and answer are known: where a host keeps them, and what stands in for the write that
holds one (MATH.md section 9).

    changed.py     what is answered when the writes at some cells of each fact are changed
    located.py     the map (head, token of the statement) of what deleting a write costs, and the cells that bind
    prices.py      what attribution says of every write: exact first order and closed form
    sufficient.py  atoms and other matrices in the place of a write
    elsewhere.py   a binding write moved to another name, or to a passage without the fact
    recovery.py    known pairs against atoms
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from writesae.config import MAY_BE_EMPTY, at_least, at_most, checked
from writesae.errors import ConfigError
from writesae.evals.common.conditions import Size
from writesae.evals.common.evaluation import Evaluation
from writesae.types import Reading, Timing

Baseline = Literal["pca", "kmeans", "random"]
"""A dictionary that nothing was trained for: the writes' principal directions (uncentred; there are at most `K V`), the
centres of their clusters, or random rank-1 matrices."""


@checked
@dataclass(frozen=True)
class RecallConfig:
    """Tell facts, find the writes that hold one, take them out, and put atoms in their place."""

    pattern: str = ""
    """How a fact is told, such as " {name} has the {thing}." (which it is if not said, save for a shipped host whose
    card says otherwise)."""
    names: int | None = None
    """Names in play, the first of those that are single tokens; all if not said."""
    things: int | None = None
    """Things in play. A dictionary has room for the pairs where its features are twice as many as names x things."""
    facts: int = 8
    """Facts a passage."""
    counts: tuple[int, ...] = (2, 4, 8, 12, 16, 24, 32)
    """Numbers of facts for which recall is measured; those for which there are too few names or things are left out."""
    gap: int = 60
    """Sentences between facts and questions, at most, where recall is measured by distance."""
    least: float = 0.5
    """A host that answers a smaller share of its facts right is refused: there is nothing to find."""
    cells: tuple[str, ...] = ()
    """The writes that hold a fact together, where they are known: a head, and the token counted from the name, as in
    L1.H1+3. They are looked for if not said."""
    reach: int | None = None
    """Tokens from the name on at which a write is looked for; twice a statement if not said."""
    found_on: int = 6
    """Passages of their own on which it is looked for."""
    tried: int = 160
    """Single writes that are deleted for the map, those that the exact first order finds largest; of each layer, all
    heads at a token are deleted together whatever this is."""
    timing: Timing = "after_token"
    """Whether a token reads the change of its own write."""
    readings: tuple[Reading, ...] = ("state", "increment")
    """Which feature a dictionary of states is asked for; one of writes has one reading."""
    amplitudes: tuple[Size, ...] = ("coefficient", "norm", "projection")
    """How large an atom is: at its coefficient, at the write's norm, or at its least-squares size on the write."""
    pairs_on: int = 160
    """Passages of their own on which known pairs are collected."""
    baselines: tuple[Baseline, ...] = field(default=("pca", "kmeans", "random"), metadata=MAY_BE_EMPTY)
    """Other dictionaries of the same size, beside which the recovery of pairs is told."""
    seed: int = 0
    """Of facts, controls and random matrices, and of the bootstrap."""

    def __post_init__(self) -> None:
        at_least(self, names=2, things=2, facts=2, counts=1, gap=0, reach=1, found_on=1, tried=1, pairs_on=2, least=0)
        at_most(self, least=1)
        for name, count in (("names", self.names), ("things", self.things)):
            if count is not None and count < self.facts:
                raise ConfigError(f"{self.facts} facts a passage need as many {name}, not {count}: give more of them")


recall = Evaluation(
    "recall",
    RecallConfig,
    takes="optional",
    title="Which write holds a fact, and does one atom bring it back?",
    intro=(
        "Passages tell facts that are drawn anew in each, \u201cAnna has the lamp\u201d, and ask for them later. The "
        "writes that hold a fact are found, deleted, and replaced; what the model then answers is right or wrong."
    ),
    passages=100,
    length=256,
    pairs=("write-value", "state"),
    second=True,
    causal=True,
)
