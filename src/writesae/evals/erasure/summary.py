"""How the followed token's log probability changes with the dose, at firings and elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import pandas as pd

from writesae.evals.common.cells import AtTiming, Cells, Column, OfWrite, cells, table_of
from writesae.evals.common.change import Change, change_of, changed, corrected
from writesae.evals.common.conditions import common
from writesae.evals.common.result import Result
from writesae.evals.erasure import ErasureConfig
from writesae.show import words
from writesae.show.doses import Point, by_dose, curves_of
from writesae.show.parts import Panel, Plot

Condition = Literal["delete", "elsewhere"]
CONDITIONS = {"delete": ("taken out", "delete"), "elsewhere": ("added elsewhere", "random")}
"""Name and colour."""

COLUMNS = common("feature", "passage", "position", "timing") | {
    "condition": "delete: its write is taken out where it fires; elsewhere: added where it does not",
    "pair": "a firing and the place elsewhere that gets its write have the same number, by feature",
    "token": "the followed token's id",
    "text": "its text",
    "native_write": "what is taken out: delta or value",
    "dose": "how many times",
    "norm": "Frobenius norm of what is taken out or added",
    "change": "change of the followed token's log probability, nats",
    "floor": "largest change of any log probability between two native rows of the same batch: rounding, nats",
}


BY = ("feature", "token", "text", "timing", "native_write", "condition", "dose")


@dataclass(frozen=True)
class Cell:
    """One feature, timing, native write and condition at one dose."""

    feature: Annotated[int, Column("feature")]
    token: int
    """Whose log probability is followed."""
    text: Annotated[str, Column("token", words.visible_token)]
    timing: AtTiming
    native_write: OfWrite
    condition: Annotated[Condition, Column("what", lambda condition: CONDITIONS[condition][0])]
    dose: Annotated[float, Column("dose", words.times)]
    change: Annotated[
        Change,
        Column("places", lambda change: words.count(change.n)),
        Column("passages", lambda change: words.count(change.passages)),
        changed("mean (nats)", 4),
        Column("median", lambda change: words.signed(change.median, 4)),
    ]
    """Of the token's log probability."""


Summary = Cells[Cell]


def summarise(tables: Mapping[str, pd.DataFrame], config: ErasureConfig) -> Summary:
    """The summary of the records."""
    parts = list(cells(tables["records"], BY, sort=True))
    changes = corrected([change_of(part.change, part.passage, config.seed, part.floor) for _, part in parts])
    return Cells(tuple(Cell(**how, change=change) for (how, _), change in zip(parts, changes, strict=True)))


def finding(result: Result[ErasureConfig, Summary]) -> str:
    """What one dose does to the first feature's token, at firings and elsewhere."""
    config, first, said = result.config, result.summary.cells[0], []
    dose, form = min(config.doses, key=lambda d: abs(d - 1.0)), config.native_writes[0]
    for timing in config.timings:
        rows = result.summary.where(feature=first.feature, timing=timing, native_write=form, dose=dose)
        each, token = "; ".join(map(_said, rows)), words.visible_token(rows[0].text)
        said.append(f"{words.timing(timing)}, token \u201c{token}\u201d: {each}")
    return (
        f"Feature {first.feature}, its write ({form} form) at {words.plain(dose)} times its size, change of the "
        f"token\u2019s log probability in nats. {'. '.join(s[:1].upper() + s[1:] for s in said)}."
    )


def _said(cell: Cell) -> str:
    name, change = CONDITIONS[cell.condition][0], cell.change
    if change.small:
        return f"{name} too small to decide ({words.percent(change.above)} of {change.n} changes above rounding)"
    return (
        f"{name} {words.signed(change.mean, 4)} ({words.span(change.interval, 4)}; {words.count(change.n)} places in "
        f"{words.plural(change.passages, 'passage')}, p {words.quantity(change.p)})"
    )


def panel(result: Result[ErasureConfig, Summary]) -> Panel:
    """Change by dose, one figure a feature, timing and native write."""
    plots = []
    for number, rows in enumerate(result.summary.alike("feature", "token", "timing", "native_write")):
        curves = curves_of(rows, "condition", CONDITIONS, lambda r: Point(r.dose, r.change.mean, r.change.interval))
        figure = by_dose(curves, "dose (times the write)", "change of log probability (nats)", words.signed, 0.0)
        one = rows[0]
        title = f"Feature {one.feature}, token {words.visible_token(one.text)}, {words.timing(one.timing)}"
        title += f", {one.native_write} write"
        plots.append(Plot(f"dose-{number}", title, figure, "Bars: 95 % bootstrap intervals over passages."))
    followed = {
        "closed": "the one whose unembedding the atom points at through the head",
        "measured": "the one that loses most on one half of the passages, followed on the other half",
    }[result.config.follow]
    note = (
        f"The followed token is {'given' if result.config.token is not None else followed}. Added elsewhere: the very "
        "writes of the firings, each at a place where the feature does not fire, so that the doses are equal. p: "
        "signed ranks of the passages\u2019 means against no change, Holm-corrected over the table."
    )
    return Panel(tuple(plots), table_of(Cell, result.summary.cells), note)
