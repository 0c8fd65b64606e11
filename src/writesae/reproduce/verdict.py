"""What a number of ours says of a published one, in words, from its interval alone."""

from __future__ import annotations

import math
from typing import Literal

from writesae.reproduce.answers import Ours

Verdict = Literal["holds", "holds in direction", "does not hold here", "turns", "fails here too", "not comparable"]
MEANING: dict[Verdict, str] = {
    "holds": "the interval excludes no effect and reaches the published value or what lies beyond it",
    "holds in direction": "the interval excludes no effect, and stays below the published value",
    "does not hold here": "the interval holds no effect, or the opposite one",
    "turns": "the paper reports that its method fails here; the interval excludes no effect",
    "fails here too": "the paper reports that its method fails here, and so does ours",
    "not comparable": "nothing was measured beside it; the reason is said",
}


def verdict(ours: Ours, published: float, nothing: float, rising: bool, unmet: bool, no_effect: bool) -> Verdict:
    """The word for one number.

    `nothing` is the value of no effect and `rising` says on which side of it the claim lies; `unmet` is a claim that
    the paper's own method fails at, `no_effect` one whose claim is that there is none. A number without an interval is
    taken for exact.
    """
    low, high = ours.interval
    if math.isnan(low) or math.isnan(high):
        low = high = ours.value
    if math.isnan(low):
        return "not comparable"
    if not rising:
        low, high, published, nothing = -high, -low, -published, -nothing
    if no_effect:
        return "holds" if low <= nothing <= high else "does not hold here"
    if unmet:
        return "turns" if low > nothing else "fails here too"
    if low <= nothing:
        return "does not hold here"
    return "holds" if high >= published else "holds in direction"
