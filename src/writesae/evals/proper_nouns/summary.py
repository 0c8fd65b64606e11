"""What writing does to names and to words, and whether nothing was found or nothing is there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast

import pandas as pd

from writesae.evals.common.floor import stands_out
from writesae.evals.common.stats import Interval, clustered, equivalence, holm, mann_whitney, moved
from writesae.evals.installs.summary import TRIALS, gain_test
from writesae.evals.proper_nouns.config import ProperNounsConfig
from writesae.types import DirectionKind, NativeWrite, Timing

ALPHA = 0.05

COLUMNS = TRIALS | {
    "targets": "what comes next in the text: name or word",
    "tokens_of_class": "tokens of the vocabulary that are of this class, the same in every row of it",
}

Class = Literal["name", "word"]
Verdict = Literal["effect", "null", "undecided"]


@dataclass(frozen=True)
class Row:
    """One class of targets, direction, timing, native write and magnitude."""

    targets: Class
    direction: DirectionKind
    timing: Timing
    native_write: NativeWrite
    magnitude: float
    n: int
    native: float
    """Share of unedited continuations that contain the target."""
    rate: float
    difference: Interval
    """Of the edited minus the unedited share, bootstrap over passages."""
    p: float
    """McNemar's exact test, Holm-corrected over the table."""
    p_equivalent: float
    """Two one-sided tests that the difference is smaller than the margin, Holm-corrected over the table."""
    verdict: Verdict
    """`effect`: p below 0.05; `null`: p_equivalent below 0.05; `undecided`: neither."""
    lift: float
    """Mean change of the target's log probability at the first generated token, nats."""
    lift_interval: Interval
    above: float
    """Share of the lifts that are above rounding."""
    p_lift: float
    """Wilcoxon signed-rank test of the lift against none, Holm-corrected over the table."""
    p_words: float
    """Mann-Whitney test of the lift against ordinary words, Holm-corrected; NaN for words."""


@dataclass(frozen=True)
class Summary:
    """How many tokens count as names, and the table."""

    names: int
    words: int
    rows: tuple[Row, ...]


_Name = tuple[Class, DirectionKind, Timing, NativeWrite, float]


def summarise(tables: Mapping[str, pd.DataFrame], config: ProperNounsConfig) -> Summary:
    """The summary of the records."""
    records = tables["records"]
    by = ["targets", "direction", "timing", "native_write", "magnitude"]
    groups = {cast(_Name, name): part.sort_values("passage") for name, part in records.groupby(by, sort=False)}
    change = {name: part["included"].to_numpy(float) - part["native"].to_numpy(float) for name, part in groups.items()}
    p = holm([gain_test(part, part["native"].to_numpy(bool)) for part in groups.values()])
    same = holm([equivalence(x, config.margin) for x in change.values()])
    p_lift = holm([moved(part["lift"], part["passage"]) for part in groups.values()])
    names = [name for name in groups if name[0] == "name"]
    against = holm([mann_whitney(groups[name]["lift"], groups["word", *name[1:]]["lift"]).p for name in names])
    p_words = dict(zip(names, against, strict=True))
    rows = []
    for i, (name, part) in enumerate(groups.items()):
        verdict: Verdict = "effect" if p[i] < ALPHA else "null" if same[i] < ALPHA else "undecided"
        rows.append(
            Row(
                *name[:4], float(name[4]), len(part), float(part["native"].mean()), float(part["included"].mean()),
                clustered(change[name], part["passage"], config.seed), p[i], same[i], verdict,
                float(part["lift"].mean()), clustered(part["lift"], part["passage"], config.seed),
                float(stands_out(part["lift"], part["floor"]).mean()), p_lift[i], p_words.get(name, float("nan")),
            )
        )  # fmt: skip
    sizes = records.groupby("targets")["tokens_of_class"].first()
    return Summary(int(sizes["name"]), int(sizes["word"]), tuple(rows))
