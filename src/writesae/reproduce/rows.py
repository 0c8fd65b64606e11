"""One line of the table: a claim, the published number, one of ours, and what they say of each other."""

from __future__ import annotations

from dataclasses import dataclass

from writesae.evals.common.stats import Interval
from writesae.reproduce.answers import NOWHERE, Ours
from writesae.reproduce.bindings import Binding
from writesae.reproduce.claims import claim
from writesae.reproduce.verdict import Verdict, verdict


@dataclass(frozen=True)
class Row:
    """One number of ours, or why there is none."""

    claim: str
    host: str
    what: str
    """Which of the numbers: reading, timing, predictor."""
    published: float | None
    value: float | None
    interval: Interval
    """95%; NaN where nothing could be resampled."""
    n: int
    verdict: Verdict | None
    """None for a number that stands beside for comparison."""
    differs: str
    """What is done otherwise than published, or why nothing was measured."""


def row(binding: Binding, number: int, ours: Ours, host: str, family: str) -> Row:
    """The row of one number of a claim's, on a host of a family."""
    about = claim(binding.claim)
    published = about.number(binding.by_family.get(family, binding.published))
    said = None
    if number < binding.compares:
        said = verdict(ours, published, binding.nothing, binding.rising, about.unmet, binding.no_effect)
    beside = published if said is not None else None
    return Row(binding.claim, host, ours.what, beside, ours.value, ours.interval, ours.n, said, binding.differs)


def without(claim_id: str, host: str, why: str) -> Row:
    """The row of a claim that nothing was measured for."""
    return Row(claim_id, host, "", None, None, NOWHERE, 0, "not comparable", why)
