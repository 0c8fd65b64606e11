"""Change what a host has written into its memory, and let it speak: see `install`, `erase` and `amplify`."""

from writesae.causal.actions import (
    AddMatrix,
    ChangeFeatures,
    Edit,
    EraseWrite,
    Install,
    ReplaceByAtom,
    Transplant,
    Write,
    take_write,
)
from writesae.causal.engine import editing
from writesae.causal.schedule import Always, At, Firing, OnTokens, Predicate, sentence_ends
from writesae.causal.targets import token_id
from writesae.edits.compare import Comparison
from writesae.edits.directions import Direction, atom_direction, make_many_directions
from writesae.edits.generation import Generation, Sampling, generate
from writesae.edits.plan import Edited, amplify, clamp, edited, erase, install, replace_by_atom, transplant

__all__ = [
    "AddMatrix", "Always", "At", "ChangeFeatures", "Comparison", "Direction", "Edit", "Edited",
    "EraseWrite", "Firing", "Generation", "Install", "OnTokens", "Predicate", "ReplaceByAtom", "Sampling",
    "Transplant", "Write", "amplify", "atom_direction", "clamp", "edited", "editing", "erase",
    "generate", "install", "make_many_directions", "replace_by_atom", "sentence_ends", "take_write", "token_id",
    "transplant",
]  # fmt: skip

_RENAMED = dict.fromkeys(("AddFeatures", "ClampFeatures", "ScaleFeatures"), "ChangeFeatures")
"""Old names -> their successor."""


def __getattr__(name: str) -> object:
    now = f": it is writesae.edits.{_RENAMED[name]} now" if name in _RENAMED else ""
    raise AttributeError(f"module 'writesae.edits' has no attribute {name!r}{now}")
