"""How much something changed at places that stand in passages: one estimate, said and shown alike everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from writesae.evals.common.cells import Column
from writesae.evals.common.floor import stands_out, too_small
from writesae.evals.common.stats import Interval, clustered, holm, moved
from writesae.show import words


@dataclass(frozen=True)
class Change:
    """Of a logit, a log probability, a count."""

    n: int
    passages: int
    mean: float
    median: float
    interval: Interval
    """Of the mean, bootstrap over passages."""
    above: float
    """Share of the changes that are above rounding; NaN where none can be."""
    p: float
    """Wilcoxon signed-rank test of the passages' means against no change, Holm-corrected over the table; 1 where
    nothing changed."""

    @property
    def small(self) -> bool:
        """Whether too few changes are above rounding to decide anything."""
        return too_small(self.above)

    def said(self, digits: int) -> str:
        """Mean, interval and p in words."""
        bounds = words.span(self.interval, digits)
        return f"{words.signed(self.mean, digits)} ({bounds}, p {words.quantity(self.p)})"


def change_of(values: ArrayLike, passages: ArrayLike, seed: int, floor: ArrayLike | None = None) -> Change:
    """The estimate, its p not yet corrected; `floor` is what rounding changes at each place."""
    x = np.asarray(values, float)
    above = float("nan") if floor is None else float(stands_out(x, floor).mean())
    interval, p = clustered(x, passages, seed), moved(x, passages)
    return Change(len(x), len(np.unique(passages)), float(x.mean()), float(np.median(x)), interval, above, p)


def corrected(changes: Sequence[Change]) -> list[Change]:
    """With Holm's p values over all of them."""
    return [replace(one, p=p) for one, p in zip(changes, holm([one.p for one in changes]), strict=True)]


def changed(head: str, digits: int = 3, p: str = "p") -> tuple[Column, ...]:
    """Its columns."""
    return (
        Column(head, lambda change: words.signed(change.mean, digits)),
        Column("95 % interval", lambda change: words.span(change.interval, digits)),
        Column("above rounding", lambda change: words.percent(change.above)),
        Column(p, lambda change: words.quantity(change.p)),
    )
