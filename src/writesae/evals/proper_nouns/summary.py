"""What writing does to names and to words, and whether nothing was found or nothing is there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import pandas as pd

from writesae.evals.common.cells import Along, AtTiming, Cells, Column, OfWrite, cells, table_of
from writesae.evals.common.change import Change, change_of, changed, corrected
from writesae.evals.common.result import Result
from writesae.evals.common.stats import Interval, clustered, equivalence, holm, mann_whitney
from writesae.evals.installs.summary import TRIALS, gain_test
from writesae.evals.proper_nouns import ProperNounsConfig
from writesae.show import words
from writesae.show.doses import DIRECTIONS, Point, by_dose, curves_of
from writesae.show.parts import Panel, Plot

ALPHA = 0.05

COLUMNS = TRIALS | {
    "targets": "what comes next in the text: name or word",
    "tokens_of_class": "tokens of the vocabulary that are of this class, the same in every row of it",
}
BY = ("targets", "direction", "timing", "native_write", "magnitude")

Class = Literal["name", "word"]
Verdict = Literal["effect", "null", "undecided"]


@dataclass(frozen=True)
class Cell:
    """One class of targets, direction, timing, native write and magnitude."""

    targets: Annotated[Class, Column("target")]
    direction: Along
    timing: AtTiming
    native_write: OfWrite
    magnitude: Annotated[float, Column("dose", words.times)]
    native: Annotated[float, Column("unedited", words.percent)]
    """Share of unedited continuations that contain the target."""
    rate: Annotated[float, Column("edited", words.percent)]
    difference: Annotated[float, Column("difference (points)", lambda share: _points(share))]
    """Of the edited minus the unedited share."""
    interval: Annotated[Interval, Column("95 % interval", lambda bounds: _span(bounds))]
    """Of it, bootstrap over passages."""
    p: Annotated[float, Column("p", words.quantity)]
    """McNemar's exact test, Holm-corrected over the table."""
    p_equivalent: Annotated[float, Column("p none", words.quantity)]
    """Two one-sided tests that the difference is smaller than the margin, Holm-corrected over the table."""
    verdict: Annotated[Verdict, Column("verdict")]
    """`effect`: p below 0.05; `null`: p_equivalent below 0.05; `undecided`: neither."""
    lift: Annotated[Change, changed("lift (nats)", p="p lift")]
    """Of the target's log probability at the first generated token, nats."""
    p_words: Annotated[float, Column("p against words", words.quantity)]
    """Mann-Whitney test of the lift against ordinary words, Holm-corrected; NaN for words."""


@dataclass(frozen=True)
class Summary(Cells[Cell]):
    """How many tokens count as names, and the table."""

    names: int
    words: int


def summarise(tables: Mapping[str, pd.DataFrame], config: ProperNounsConfig) -> Summary:
    """The summary of the records."""
    records = tables["records"]
    groups = {tuple(how.values()): (how, part) for how, part in cells(records, BY)}
    parts = list(groups.values())
    change = [part.included.to_numpy(float) - part.native.to_numpy(float) for _, part in parts]
    p = holm([gain_test(part, part.native) for _, part in parts])
    same = holm([equivalence(x, config.margin) for x in change])
    lifts = corrected([change_of(part.lift, part.passage, config.seed, part.floor) for _, part in parts])
    p_words = holm([
        mann_whitney(part.lift, groups["word", *key[1:]][1].lift).p if key[0] == "name" else float("nan")
        for key, (_, part) in groups.items()
    ])  # fmt: skip
    found = [
        Cell(
            **how, native=float(part.native.mean()), rate=float(part.included.mean()),
            difference=float(part.included.mean() - part.native.mean()),
            interval=clustered(change[i], part.passage, config.seed), p=p[i], p_equivalent=same[i],
            verdict="effect" if p[i] < ALPHA else "null" if same[i] < ALPHA else "undecided",
            lift=lifts[i], p_words=p_words[i],
        )
        for i, (how, part) in enumerate(parts)
    ]  # fmt: skip
    sizes = records.groupby("targets").tokens_of_class.first()
    return Summary(tuple(found), int(sizes["name"]), int(sizes["word"]))


def finding(result: Result[ProperNounsConfig, Summary]) -> str:
    """The verdicts on names and on words, and the largest difference."""
    said = []
    for kind in ("name", "word"):
        rows = result.summary.where(targets=kind)
        meant = [r for r in rows if r.direction != "random"] or rows
        verdicts = Counter(r.verdict for r in meant)
        most = max(meant, key=lambda r: abs(r.difference))
        each = ", ".join(f"{verdicts[v]} {v}" for v in ("effect", "null", "undecided") if verdicts[v])
        said.append(
            f"{kind}s: {each}; the largest change is {_points(most.difference)} ({_span(most.interval)}) points from "
            f"{words.percent(most.native)} ({most.direction}, {words.plain(most.magnitude)} native writes)"
        )
    return (
        f"Written at {result.provenance.site} before {words.count(result.config.contexts)} names and as many words, "
        "the share of continuations that hold them changes so (a null excludes "
        f"{words.plain(100 * result.config.margin)} points): {'; '.join(said)}."
    )


def panel(result: Result[ProperNounsConfig, Summary]) -> Panel:
    """Change of inclusion and lift by dose, for names and for words."""
    summary, plots, x = result.summary, list[Plot](), "norm (native writes)"
    for number, rows in enumerate(summary.alike("targets", "timing", "native_write")):
        title = f"{rows[0].targets.capitalize()}s, {words.timing(rows[0].timing)}"
        title += f", {rows[0].native_write} write" if len(result.config.native_writes) > 1 else ""
        more = curves_of(rows, "direction", DIRECTIONS, lambda r: Point(r.magnitude, r.difference, r.interval))
        figure = by_dose(more, x, "change of inclusion", words.percent, 0.0, share=True)
        plots.append(Plot(f"change-{number}", f"{title}: said more often", figure, "Below 0 the direction is erased."))
        lift = curves_of(rows, "direction", DIRECTIONS, lambda r: Point(r.magnitude, r.lift.mean, r.lift.interval))
        figure = by_dose(lift, x, "first-step lift (nats)", words.signed, 0.0)
        plots.append(Plot(f"lift-{number}", f"{title}: lift", figure, "Bars: 95 % bootstrap intervals over passages."))
    note = (
        f"A name is a capitalised token whose lower-case spelling is no token ({words.count(summary.names)} of them), "
        f"a word a lower-case one whose capitalised spelling is none ({words.count(summary.words)}). p: McNemar\u2019s "
        "exact test; p none: two one-sided tests that inclusion differs by less than "
        f"{words.plain(100 * result.config.margin)} points; p against words: Mann-Whitney test of the lift; all "
        "Holm-corrected over the table."
    )
    return Panel(tuple(plots), table_of(Cell, summary.cells), note)


def _points(share: float) -> str:
    return words.signed(100 * share, 1)


def _span(bounds: Interval) -> str:
    return words.span((100 * bounds.low, 100 * bounds.high), 1)
