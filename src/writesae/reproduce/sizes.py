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
    options: dict[str, dict[str, Any]]
    """Evaluation -> its options where they are not the defaults; `passages` among them."""


SIZES = {
    "default": Sizes(
        200_000, 256, 1024, 16, 1_000_000, 2048, 64, 3,
        {"sign": {"passages": 1000}, "installs": {"passages": 100}, "amplification": {"passages": 60, "found_on": 40},
         "population": {"most": 10}, "substitution": {"firings": 1000}},
    ),
    "quick": Sizes(
        40_000, 128, 256, 8, 100_000, 2048, 16, 1,
        {"sign": {"passages": 60}, "installs": {"passages": 10, "new_tokens": 10},
         "amplification": {"passages": 10, "found_on": 6, "new_tokens": 30}, "population": {"atoms": 24, "most": 5},
         "substitution": {"firings": 150}, "logit_shift": {"atoms": 8, "places": 8}, "selectivity": {"atoms": 8},
         "readers": {"atoms": 4, "firings": 4}, "erasure": {"firings": 40}},
    ),
    "published": Sizes(5000 * 1024, 1024, 2048, 32, 20 * 4000 * 1024, 256, 64, 3, {"substitution": {"firings": 4851}}),
}  # fmt: skip
"""`default` for a laptop, `quick` for a look, `published` as the paper's Table 8 has it."""
