"""How much is captured, trained and measured: sizes that a run is made at. Free of torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Sizes:
    """Of one reproduction."""

    tokens: int
    """Captured for training."""
    length: int
    """Tokens a sequence and a passage."""
    features: int
    """Atoms a dictionary."""
    k: int
    """Active atoms a token."""
    train_tokens: int
    """Seen in training, a dictionary."""
    batch: int
    """Tokens a step."""
    passages: int
    """Held out, where an evaluation has no number of its own."""
    seeds: int
    """Dictionaries of the headline's rows."""
    table_seeds: int
    """Dictionaries of a variant in the tables over layers."""
    layers: int
    """Layers of these tables: the audited one, and one of every other part of the model."""
    ks: tuple[int, ...]
    """Active atoms that are tried beside `k`."""
    recipe: dict[str, Any]
    """What training does otherwise than the published recipe."""
    options: dict[str, dict[str, Any]]
    """Evaluation, or measurement -> its options where they are not the defaults; `passages` among them."""
    sites: tuple[str, ...] = ()
    """Heads, the first of them the main one, on a host that has them; else the audit chooses."""
    corpus: str = "sample"
    """Text, where a host has learnt text."""


FAST = {"lr": 3e-3, "lr_end": 3e-4, "init": "writes", "validation": 0.1}
"""Eight times the published batch takes larger steps; atoms that begin as writes need fewer."""
SIZES = {
    "default": Sizes(
        60_000, 256, 512, 16, 200_000, 2048, 48, seeds=3, table_seeds=1, layers=3, ks=(4, 8, 32), recipe=FAST,
        options={
            "sign": {"passages": 500}, "installs": {"passages": 40},
            "amplification": {"passages": 40, "found_on": 24, "new_tokens": 200}, "population": {"most": 10},
            "substitution": {"firings": 600}, "substitution-layer": {"firings": 200},
            "substitution-layers": {"firings": 200}, "selectivity-cells": {"atoms": 8, "firings": 4},
            "logit_shift": {"atoms": 24, "places": 24}, "recall": {"passages": 24},
        },
    ),
    "quick": Sizes(
        40_000, 128, 256, 8, 100_000, 2048, 16, seeds=1, table_seeds=1, layers=2, ks=(4,), recipe=FAST,
        options={
            "sign": {"passages": 60}, "installs": {"passages": 10, "new_tokens": 10},
            "amplification": {"passages": 10, "found_on": 6, "new_tokens": 30},
            "population": {"atoms": 24, "most": 5}, "substitution": {"firings": 150},
            "substitution-layer": {"firings": 100}, "substitution-layers": {"firings": 100},
            "logit_shift": {"atoms": 8, "places": 8}, "selectivity-cells": {"atoms": 4, "firings": 2},
            "readers": {"atoms": 4, "firings": 4}, "erasure": {"firings": 40}, "recall": {"passages": 6},
        },
    ),
    "published": Sizes(
        5000 * 1024, 1024, 2048, 32, 20 * 4000 * 1024, 256, 64, seeds=3, table_seeds=3, layers=3, ks=(8, 16, 64),
        recipe={"validation": 0.2}, options={"substitution": {"firings": 1851}, "selectivity-cells": {"atoms": 8}},
        sites=("L9.H4", "L1.H4", "L17.H4"), corpus="hf:Skylion007/openwebtext",
    ),
}  # fmt: skip
"""`default` for a laptop, `quick` for a look, `published` as the paper's Table 8 has it."""
