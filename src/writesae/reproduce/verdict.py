"""What a number of ours says of a published one, in words, from its interval alone."""

from __future__ import annotations

import math
from typing import Literal

from writesae.reproduce.answers import Ours

Verdict = Literal[
    "holds", "holds in direction", "does not hold here", "turns", "fails here too", "ours alone", "not comparable"
]
MEANING: dict[Verdict, str] = {
    "holds": "the interval excludes no effect and reaches the published value or what lies beyond it",
    "holds in direction": "the interval excludes no effect, and stays below the published value",
    "does not hold here": "the interval holds no effect, or the opposite one",
    "turns": "the paper reports that its method has no effect here; the interval excludes no effect",
    "fails here too": "the paper reports that its method has no effect here, and neither has ours",
    "ours alone": "no number was published for it, or for hosts of this family",
    "not comparable": "nothing was measured beside it, or nothing could be resampled; the reason is said",
}


def verdict(ours: Ours, published: float | None, nothing: float, rising: bool, no_effect: bool) -> Verdict:
    """The word for one number.

    `nothing` is the value of no effect and `rising` says on which side of it the claim lies; `no_effect` is a claim
    that there is none. A published value that does not lie on the claim's side of no effect is a failure that the paper
    reports. Without an interval nothing is said, however large a number is.
    """
    low, high = ours.interval
    if published is None:
        return "ours alone"
    if math.isnan(low) or math.isnan(high):
        return "not comparable"
    if not rising:
        low, high, published, nothing = -high, -low, -published, -nothing
    if no_effect:
        return "holds" if low <= nothing <= high else "does not hold here"
    if published <= nothing:
        return "turns" if low > nothing else "fails here too"
    if low <= nothing:
        return "does not hold here"
    return "holds" if high >= published else "holds in direction"
