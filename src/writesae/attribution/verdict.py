"""Whether prices held when things were deleted for real, in words. The thresholds stand here and nowhere else."""

from __future__ import annotations

import numpy as np

from writesae.attribution.measured import Compared
from writesae.config import Json

SATURATED = 5.0
"""From so many times what was predicted on, what was measured is no first-order effect."""
ITEMS = 5
"""Fewer say nothing."""
SIGNS = 0.9
"""Least share of items whose sign was predicted."""
ORDER = 0.8
"""Least correlation (Pearson's r) of prices with what was measured."""
SIZES = 0.8
"""Least unfitted R2: the sizes are right too, with nothing fitted."""


def failed(found: Compared) -> bool:
    """Whether it can be said that prices did not hold: not in sign and order, or the target is saturated."""
    count = len(found.items)
    if count < ITEMS or not np.ptp(found.predicted) or not np.ptp(found.measured):
        return False
    return not (found.sign_agreement >= SIGNS and found.correlation >= ORDER) or bool(_saturated(found))


def verdict(what: str, found: Compared) -> str:
    """`the prices of atoms held: signs of 96.7% (90% or more), r 0.998 (0.8), unfitted R2 0.99 (0.8); 30 deleted`."""
    count = len(found.items)
    if count < ITEMS or not np.ptp(found.predicted) or not np.ptp(found.measured):
        return f"{count} {what} deleted for real: too few or too alike to say whether their prices held"
    right, order, sizes = found.sign_agreement >= SIGNS, found.correlation >= ORDER, found.r2 >= SIZES
    said = "did not hold" if not (right and order) else "held" if sizes else "held in sign and order, not in size"
    return (
        f"the prices of {what} {said}: signs of {found.sign_agreement:.1%} (at least {SIGNS:.0%}), "
        f"r {found.correlation:.3f} ({ORDER:g}), unfitted R2 {found.r2:.3f} ({SIZES:g}); {count} deleted for real, "
        f"together {found.predicted.sum():+.4f} predicted and {found.measured.sum():+.4f} measured{_saturated(found)}"
    )


def _saturated(found: Compared) -> str:
    """What to make of it where deleting does far more than the prices say; empty elsewhere."""
    predicted, measured = (float(np.abs(x).sum()) for x in (found.predicted, found.measured))
    if measured < SATURATED * predicted:
        return ""
    return (
        f". Deleting does {measured / predicted:.3g} times as much as the prices say: the target is saturated, as "
        "where an answer is sure, and hardly moves with a small change of a write that it cannot do without; trust "
        "the deletions, not the prices"
    )


def check_json(what: str, found: Compared) -> Json:
    """A check with its verdict, as JSON."""
    numbers = {"correlation": found.correlation, "unfitted_r2": found.r2, "sign_agreement": found.sign_agreement}
    predicted, measured = found.predicted.tolist(), found.measured.tolist()
    return {
        "verdict": verdict(what, found), "items": list(found.items), "predicted": predicted, "measured": measured,
        **numbers,
    }  # fmt: skip
