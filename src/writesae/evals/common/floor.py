"""Whether effects stand above rounding, and what their wins decide. Nothing heavy is imported here.

The KL of a firing cannot be told from rounding where it is no larger than that between two native runs whose rounding
differs (`causal.patching.Scored.again`). That KL is one draw of a random number, so an effect has to be `MARGIN` times
as large as it, and as its median over all firings, to count.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from writesae.evals.common.stats import Share, share
from writesae.show import words

MARGIN = 10.0
"""An effect counts from so many times the rounding's KL on: logits move by about three times as much."""

Verdict = Literal["wins", "loses", "undecided", "too small to decide"]
"""Whether something wins more often than not: by the interval of its wins among firings above the floor; `too small to
decide` where fewer than half of the firings are."""


@dataclass(frozen=True)
class Floor:
    """What is left when firings whose effect is at the floor of rounding are set aside."""

    median: float
    """Median over firings of the KL between two native runs whose rounding differs, nats."""
    above: float
    """Share of firings whose effect stands above the floor."""
    wins: Share
    """Wins among those."""
    verdict: Verdict


def above(effect: ArrayLike, floor: ArrayLike) -> NDArray[np.bool_]:
    """Which effects (KLs) stand above the floors of their firings."""
    own = np.asarray(floor, float)
    least = MARGIN * np.maximum(own, np.median(own) if own.size else 0.0)
    stands: NDArray[np.bool_] = np.asarray(effect, float) > least
    return stands


def stands_out(change: ArrayLike, floor: ArrayLike) -> NDArray[np.bool_]:
    """Which changes of one logit or log probability are larger than any that rounding makes (`floor`: the largest of
    the whole vocabulary between two native runs), at their own place and at the median one."""
    own = np.asarray(floor, float)
    least = np.maximum(own, np.median(own) if own.size else 0.0)
    larger: NDArray[np.bool_] = np.abs(np.asarray(change, float)) > least
    return larger


def floor_of(wins: ArrayLike, effect: ArrayLike, floor: ArrayLike, clusters: ArrayLike, seed: int) -> Floor:
    """Wins against an effect (the KL of deletion, say) whose firings have these floors and stand in these clusters."""
    seen, floors = above(effect, floor), np.asarray(floor, float)
    among = share(np.asarray(wins)[seen], np.asarray(clusters)[seen], seed)
    standing, median = (float(seen.mean()), float(np.median(floors))) if seen.size else (float("nan"), float("nan"))
    return Floor(median, standing, among, verdict(standing, among))


def too_small(standing: float) -> bool:
    """Whether fewer than half of the effects stand above rounding, so that they decide nothing."""
    return not standing >= 0.5


def verdict(standing: float, among: Share) -> Verdict:
    """What the wins among the firings above the floor decide, where `standing` is the share of these."""
    if too_small(standing):
        return "too small to decide"
    if among.interval.low > 0.5:
        return "wins"
    return "loses" if among.interval.high < 0.5 else "undecided"


def rate(wins: Share, floor: Floor, by: str = "passage") -> str:
    """A win rate with its interval in words, or why there is none. `by` says what is resampled."""
    if floor.verdict == "too small to decide":
        return (
            f"too small to decide: the effect of deletion stands above rounding at {words.percent(floor.above)} of "
            f"{words.count(wins.n)} firings"
        )
    bounds = f"95 % interval by {by} {words.interval(wins.interval)}"
    if wins.wilson is not None:
        bounds += f", Wilson\u2019s {words.interval(wins.wilson)}"
    rest = "" if floor.above == 1 else f"; above rounding {words.percent(floor.above)}"
    return f"{words.percent(wins.value)} of {words.count(wins.n)} firings ({bounds}{rest})"
