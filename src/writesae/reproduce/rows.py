"""One line of the table: a claim, the published number, one of ours, and what they say of each other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from writesae.config import from_plain
from writesae.disk import read_json
from writesae.errors import DataError
from writesae.evals.common.stats import Interval
from writesae.reproduce.answers import NOWHERE, Ours
from writesae.reproduce.bindings import Binding
from writesae.reproduce.claims import claim
from writesae.reproduce.verdict import Verdict, verdict

UNDOUBTED = "nothing could be resampled, so that the number has no interval"


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


def row(binding: Binding, ours: Ours, host: str, family: str) -> Row:
    """The row of one number of a claim's, on a host of a family."""
    path = binding.by_family.get(family, binding.published) if ours.beside == "" else ours.beside
    published, said, differs = claim(binding.claim).number(path) if path else None, None, binding.differs
    if ours.beside is not None:
        said = verdict(ours, published, binding.nothing, binding.rising, binding.no_effect)
        differs = UNDOUBTED if said == "not comparable" else differs
    return Row(binding.claim, host, ours.what, published, ours.value, ours.interval, ours.n, said, differs)


def without(claim_id: str, host: str, why: str) -> Row:
    """The row of a claim that nothing was measured for."""
    return Row(claim_id, host, "", None, None, NOWHERE, 0, "not comparable", why)


def read_rows(path: Path) -> list[Row]:
    """The rows of a finished reproduction, from its table; raises DataError where that is damaged."""
    data = read_json(path)
    rows = data.get("rows") if isinstance(data, dict) else None
    if not isinstance(rows, list):
        raise DataError(f"{path} is not the table of a reproduction")
    return [from_plain(Row, one) for one in rows]
