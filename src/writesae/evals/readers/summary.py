"""What the records say: in numbers, in words, in figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from writesae.evals.common.cells import Cells, cells, inside
from writesae.evals.common.conditions import ADDED_WHERE
from writesae.evals.common.floor import above, too_small
from writesae.evals.common.result import Result
from writesae.evals.common.stats import Interval, clustered
from writesae.evals.readers import ReadersConfig
from writesae.show import words
from writesae.show.figures import canvas, drawn_of, level, log_ticks, marks, thinned
from writesae.show.heat_map import by_head, heat_map
from writesae.show.parts import Panel, Plot, Table
from writesae.types import NativeWrite, Site, Timing

ADDED = ("atom", "random")
"""What is added to the state in turn, at the native write's norm."""
BY = ("timing", "native_write")
COLUMNS = ADDED_WHERE | {
    "reader": "the later head",
    "atom": "norm of what the atom changes in its output",
    "random": "the same by a random write of the same norm",
    "floor": "the same by rounding alone",
}


@dataclass(frozen=True)
class Reader:
    """A later head and how it reads one atom."""

    feature: int
    site: str
    ratio: float
    """Median change by the atom over median change by random directions."""


@dataclass(frozen=True)
class Cell:
    """Over atoms and later heads, under one timing and form of the native write."""

    timing: Timing
    native_write: NativeWrite
    atoms: int
    heads: int
    readings: int
    above: float
    """Share of readings in which both the atom and the random write change more than rounding does."""
    median: float
    """Median ratio over atoms and heads."""
    mean: float
    """Geometric mean ratio."""
    interval: Interval
    """Of it, bootstrap over atoms."""
    above_median: float
    """Median ratio of the readings above rounding alone."""
    strongest: tuple[Reader, ...]
    """Each atom's strongest reader, strongest first."""

    @property
    def where(self) -> str:
        """In words."""
        return f"{words.timing(self.timing)}, at the {self.native_write} write\u2019s norm"


Summary = Cells[Cell]


def summarise(tables: Mapping[str, pd.DataFrame], config: ReadersConfig) -> Summary:
    """The summary of the records."""
    return Cells(tuple(_cell(how, own, config.seed) for how, own in cells(tables["records"], BY)))


def ratios(records: pd.DataFrame) -> pd.DataFrame:
    """One row an atom and later head: the median reading over the median random one, where there is one."""
    medians = records.groupby(["feature", "reader"], sort=False)[list(ADDED)].median()
    medians = medians[medians["random"] > 0]
    return (medians["atom"] / medians["random"]).rename("ratio").reset_index()


def _cell(how: dict[str, Any], records: pd.DataFrame, seed: int) -> Cell:
    table, effect = ratios(records), records[list(ADDED)].min(axis=1)
    seen = pd.Series(False, records.index)
    for _, own in records.groupby("reader"):  # heads' outputs have scales of their own
        seen[own.index] = above(np.square(effect[own.index]), np.square(own.floor))
    logs = np.log(table.ratio.clip(lower=1e-12).to_numpy())
    interval = clustered(logs, table.feature.to_numpy(), seed)
    best = table.loc[table.groupby("feature").ratio.idxmax()].sort_values("ratio", ascending=False)
    return Cell(
        **how, atoms=int(records.feature.nunique()), heads=int(records.reader.nunique()), readings=len(records),
        above=float(seen.mean()), median=float(table.ratio.median()),
        mean=float(np.exp(logs.mean())) if len(logs) else float("nan"),
        interval=Interval(*(float(np.exp(bound)) for bound in interval)),
        above_median=float(ratios(records[seen]).ratio.median()),
        strongest=tuple(
            Reader(int(f), str(r), float(x)) for f, r, x in zip(best.feature, best.reader, best.ratio, strict=True)
        ),
    )  # fmt: skip


MOST_ATOMS = 60
"""Atoms that are drawn one by one."""


def finding(result: Result[ReadersConfig, Summary]) -> str:
    """How strongly later heads read atoms, and which one most."""
    cell = result.summary.cells[0]
    number = (
        f"{cell.where}; n = {words.plural(cell.atoms, 'atom')}, {words.plural(cell.heads, 'later head')}, "
        f"{words.count(cell.readings)} readings, {words.percent(cell.above)} of them above rounding"
    )
    if too_small(cell.above):
        return f"Too small to decide how later heads read atoms: {number}."
    best = cell.strongest[0]
    return (
        f"The median later head reads an atom {words.decimals(cell.median)} times as strongly as a random write of the "
        f"same size (geometric mean {words.decimals(cell.mean)}, 95 % interval over atoms "
        f"{words.decimals(cell.interval.low)} to {words.decimals(cell.interval.high)}; {number}); the strongest reader "
        f"is {best.site}, {words.decimals(best.ratio)} times, of feature {best.feature}."
    )


def panel(result: Result[ReadersConfig, Summary]) -> Panel:
    """Heat map of later heads, and how far each atom's strongest reader stands out."""
    cells, records = result.summary.cells, result.records
    drawn = ratios(inside(records, cells[0], BY))
    head = ("timing and norm, or atom", "strongest reader", "ratio", "mean", "95 % interval", "above rounding")
    rows = [
        (
            c.where, "median of all", words.decimals(c.median), words.decimals(c.mean),
            f"{words.decimals(c.interval.low)} to {words.decimals(c.interval.high)}", words.percent(c.above),
        )
        for c in cells
    ]  # fmt: skip
    best = cells[0].strongest[:12]
    rows += [(f"feature {r.feature}", r.site, words.decimals(r.ratio), "", "", "") for r in best]
    note = (
        "Reading: norm of the change in a later head\u2019s output at the first token that the edited state reaches; "
        "ratio of medians over firings. Mean: geometric, over atoms and heads."
    )
    if len(cells[0].strongest) > len(best):
        note += f" The table has the first {len(best)} of {len(cells[0].strongest)} atoms."
    return Panel((_map(drawn, cells[0]), _atoms(drawn)), Table(head, rows), note)


def _map(drawn: pd.DataFrame, cell: Cell) -> Plot:
    median = {Site.parse(str(name)): float(own.ratio.median()) for name, own in drawn.groupby("reader")}
    figure = heat_map(by_head(median), words.decimals, around=1.0)
    caption = (
        f"Median ratio over atoms, {cell.where}. Blue-green: more than a random write, orange: less; shading is "
        "logarithmic."
    )
    return Plot("heads", "Where atoms are read", figure, caption)


def _atoms(drawn: pd.DataFrame) -> Plot:
    """Every later head of every atom, atoms ordered by their strongest reader."""
    figure = canvas()
    strongest = drawn.groupby("feature").ratio.max().sort_values(ascending=False)
    shown = strongest.index[:MOST_ATOMS]
    place = {feature: i for i, feature in enumerate(shown)}
    kept = drawn[drawn.feature.isin(shown)]
    top = kept.ratio == kept.feature.map(strongest)
    others = kept[~top]
    few = others.iloc[thinned(len(others))]
    groups = ((few, "other later heads", "random", 5), (kept[top], "strongest reader", "heat", 9))
    for rows, name, colour, size in groups:
        x, data = np.array([place[f] for f in rows.feature]), rows[["feature", "reader"]].to_numpy().tolist()
        says = "feature %{customdata[0]}, %{customdata[1]}: %{y:.3g}"
        marks(figure, x, rows.ratio.to_numpy(float), colour, size, 0.85, says, name=name, customdata=data)
    level(figure, 1.0)
    known = kept.ratio[np.isfinite(kept.ratio) & (kept.ratio > 0)]
    if len(known):
        figure.update_yaxes(**log_ticks(float(known.min()) / 1.2, float(known.max()) * 1.2))
    figure.update_yaxes(title="ratio to a random write")
    figure.update_xaxes(title="atoms, strongest reader first", showticklabels=False, ticks="", showgrid=False)
    caption = f"{len(shown)} of {len(strongest)} atoms. Dashed: as a random write."
    if len(few) < len(others):
        caption += f" {drawn_of(len(few), len(others), 'other readings')}"
    return Plot("atoms", "Atom by atom", figure, caption)
