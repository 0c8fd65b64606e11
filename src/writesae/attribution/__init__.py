"""Which past writes made the model say this: first-order effects of atoms, writes, heads and layers, checked."""

from writesae.attribution.attribute import AtomEffects, Attribution, Contribution, attribute
from writesae.attribution.measured import (
    Compared,
    ablate_atoms,
    ablate_heads,
    ablate_writes,
    edited_scores,
    small_edits,
)
from writesae.attribution.picture import atom_map, check_plot, write_map, write_page
from writesae.causal.targets import Logit, LogitDifference, LogProbability, TextLoss

__all__ = [
    "AtomEffects",
    "Attribution",
    "Compared",
    "Contribution",
    "LogProbability",
    "Logit",
    "LogitDifference",
    "TextLoss",
    "ablate_atoms",
    "ablate_heads",
    "ablate_writes",
    "atom_map",
    "attribute",
    "check_plot",
    "edited_scores",
    "small_edits",
    "write_map",
    "write_page",
]
