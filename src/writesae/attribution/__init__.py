"""Which past writes made the model say this: first-order effects of atoms, writes, heads and layers, checked."""

from writesae.attribution.effects import AtomEffects, Attribution, attribute
from writesae.attribution.measured import (
    Compared,
    ablate_atoms,
    ablate_heads,
    ablate_layers,
    ablate_writes,
    edited_scores,
)
from writesae.attribution.picture import atom_map, attribution_page, check_plot, write_map
from writesae.attribution.ranking import Contribution, Ranking
from writesae.attribution.token_codes import TokenCodes, codes
from writesae.attribution.verdict import check_json, verdict
from writesae.causal.targets import Logit, LogitDifference, LogProbability, TextLoss

__all__ = [
    "AtomEffects", "Attribution", "Compared", "Contribution", "LogProbability", "Logit", "LogitDifference",
    "Ranking", "TextLoss", "TokenCodes", "ablate_atoms", "ablate_heads", "ablate_layers", "ablate_writes",
    "atom_map", "attribute", "attribution_page", "check_json", "check_plot", "codes", "edited_scores", "verdict",
    "write_map",
]  # fmt: skip
