"""What the records say: in numbers, in words, in figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from writesae.evals.common.classes import CLASSES, COLOURS
from writesae.evals.common.result import Result
from writesae.evals.seeds import SeedsConfig
from writesae.show import words
from writesae.show.figures import canvas, histogram, stacked, upright
from writesae.show.parts import Panel, Plot, Table

COLUMNS = {
    "feature": "alive feature of a dictionary",
    "dictionary": "its dictionary, counted from 0",
    "other": "another dictionary",
    "class_*": "register or bundle, by its cosine to this form of the native write",
    "best": "largest absolute cosine to an alive atom of the other dictionary",
    "assigned": "absolute cosine to its partner under the best one-to-one assignment, NaN without one",
}


@dataclass(frozen=True)
class Counts:
    """Atoms of one class in each dictionary."""

    native_write: str
    """The form that classes them; empty for all alive atoms."""
    name: str
    """The class, or "alive"."""
    sizes: tuple[int, ...]
    """By dictionary."""
    variation: float
    """Standard deviation over mean."""


@dataclass(frozen=True)
class Summary:
    """Over all dictionaries that could be classed."""

    dictionaries: tuple[int, ...]
    """Their numbers, counted from 0."""
    counts: tuple[Counts, ...]
    matched: float
    """Share of alive atoms whose best counterpart in another dictionary is the same, mean over ordered pairs."""
    best: float
    """Median over atoms of the best absolute cosine to another dictionary's atoms."""
    assigned: float
    """Mean absolute cosine under the best one-to-one assignment, over pairs."""


def summarise(tables: Mapping[str, pd.DataFrame], config: SeedsConfig) -> Summary:
    """The summary of the records."""
    records = tables["records"]
    names = sorted(int(n) for n in records.dictionary.unique())
    first = [records[(records.dictionary == a) & (records.other == names[int(a == names[0])])] for a in names]
    counts = [_counts("", "alive", [len(own) for own in first])]
    for column in (str(c) for c in records.columns if str(c).startswith("class_")):
        for kind in CLASSES:
            sizes = [int((own[column] == kind).sum()) for own in first]
            counts.append(_counts(column.removeprefix("class_"), kind, sizes))
    same = records.assign(same=records.best > config.match).groupby(["dictionary", "other"]).same.mean()
    return Summary(
        tuple(names), tuple(counts), float(same.mean()), float(records.best.median()), float(records.assigned.mean())
    )


def _counts(form: str, name: str, sizes: list[int]) -> Counts:
    variation = float(np.std(sizes, ddof=1) / np.mean(sizes)) if any(sizes) else float("nan")
    return Counts(form, name, tuple(sizes), variation)


def finding(result: Result[SeedsConfig, Summary]) -> str:
    """How many atoms another dictionary has too."""
    summary = result.summary
    return (
        f"{words.percent(summary.matched)} of alive atoms have a counterpart of absolute cosine above "
        f"{words.plain(result.config.match)} in another dictionary; the median best cosine is "
        f"{words.plain(summary.best, 3)} (n = {words.count(len(result.records))} atoms against "
        f"{words.plural(len(summary.dictionaries), 'dictionary', 'dictionaries')})."
    )


def panel(result: Result[SeedsConfig, Summary]) -> Panel:
    """How alike each atom's best counterpart is, and how many atoms of each class every dictionary has."""
    records, summary, match = result.records, result.summary, result.config.match
    forms = list(dict.fromkeys(c.native_write for c in summary.counts if c.native_write))
    plots = [_matches(records, column, f"class_{forms[0]}", match) for column in ("best", "assigned")]
    plots += [_sizes(summary, form) for form in forms]
    names = _names(summary)
    rows = [(_named(c), *map(words.count, c.sizes), words.percent(c.variation)) for c in summary.counts]
    note = f"One-to-one assignment: mean absolute cosine {words.plain(summary.assigned, 3)}."
    return Panel(tuple(plots), Table(("class", *names, "deviation over mean"), rows), note)


def _named(counts: Counts) -> str:
    return f"{counts.name}s, {words.write(counts.native_write)}" if counts.native_write else counts.name


def _names(summary: Summary) -> list[str]:
    return [f"dictionary {number + 1}" for number in summary.dictionaries]


def _matches(records: pd.DataFrame, column: str, kind: str, match: float) -> Plot:
    figure = canvas()
    for name, group in records.groupby(kind):
        known = group[column].dropna().to_numpy(dtype=float)
        histogram(figure, known, np.linspace(0, 1, 51), str(name), COLOURS[str(name)], "cosine")
    figure.update_layout(barmode="stack")
    upright(figure, match)
    figure.update_xaxes(title="absolute cosine", range=[-0.01, 1.01])
    figure.update_yaxes(title="atoms", rangemode="tozero")
    title = {"best": "Best counterparts", "assigned": "Partners, one to one"}[column]
    lost = int(records[column].isna().sum())
    caption = f"{words.count(len(records) - lost)} atoms and other dictionaries; dashed: where two count as the same."
    caption += f" {words.count(lost)} have no partner." if lost else ""
    return Plot(column, title, figure, caption, width="third")


def _sizes(summary: Summary, form: str) -> Plot:
    figure = canvas()
    sizes = {c.name: c.sizes for c in summary.counts if c.native_write == form}
    stacked(figure, _names(summary), {kind: sizes[kind] for kind in reversed(CLASSES)}, COLOURS)
    figure.update_xaxes(showgrid=False)
    figure.update_yaxes(title="features that fire", rangemode="tozero")
    return Plot(f"counts-{form}", f"How many of each class, {words.write(form)}", figure, width="third")
