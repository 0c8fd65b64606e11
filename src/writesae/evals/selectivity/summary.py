"""What the records say: in numbers, in words, in figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
import pandas as pd

from writesae.evals.common.conditions import ADDED, ADDED_WHERE, cells
from writesae.evals.common.floor import above, too_small
from writesae.evals.common.result import Result
from writesae.evals.common.stats import Interval, clustered
from writesae.evals.selectivity import SelectivityConfig
from writesae.show import words
from writesae.show.figures import Dot, canvas, dots, histogram, lines_of, upright
from writesae.show.parts import Panel, Plot, Table
from writesae.types import NativeWrite, Timing

AGAINST = ADDED[1:]
"""What an atom is compared with."""
PART = ("timing", "native_write")
COLUMNS = ADDED_WHERE | {
    "kl_*": "KL(native || patched) where this is added: atom, random, orthogonal_to_atom; nats",
    "floor": "KL between two native runs whose rounding differs, nats",
    "overlap_*": "share of the most moved tokens that the atom has in common with this direction",
}


@dataclass(frozen=True)
class Cell:
    """Under one timing and form of the native write: means over atoms of their means over firings."""

    timing: Timing
    native_write: NativeWrite
    atoms: int
    firings: int
    above: float
    """Share of firings at which all that was added moves more than rounding does."""
    selectivity: dict[str, float]
    """Against a random direction and one orthogonal to the atom."""
    intervals: dict[str, Interval]
    """Bootstrap over atoms."""
    above_selectivity: dict[str, float]
    """The same over the firings above rounding alone."""


@dataclass(frozen=True)
class Summary:
    """By timing and form of the native write."""

    cells: tuple[Cell, ...]


def summarise(tables: Mapping[str, pd.DataFrame], config: SelectivityConfig) -> Summary:
    """The summary of the records."""
    return Summary(tuple(_cell(key, own, config.seed) for key, own in cells(tables["records"], PART)))


def of_atoms(records: pd.DataFrame) -> pd.DataFrame:
    """One row an atom (the index): its mean selectivity against each direction."""
    own = 1 - records.groupby("feature")[[f"overlap_{name}" for name in AGAINST]].mean()
    return own.rename(columns=lambda name: str(name).removeprefix("overlap_"))


def _cell(key: tuple[str, ...], records: pd.DataFrame, seed: int) -> Cell:
    means = of_atoms(records)
    least = records[[f"kl_{name}" for name in ADDED]].min(axis=1)
    seen = above(least, records.floor)
    among = of_atoms(records[seen])
    return Cell(
        cast(Timing, key[0]), cast(NativeWrite, key[1]), len(means), len(records), float(np.mean(seen)),
        {name: float(means[name].mean()) for name in AGAINST},
        {name: clustered(means[name].to_numpy(), means.index.to_numpy(), seed) for name in AGAINST},
        {name: float(among[name].mean()) for name in AGAINST},
    )  # fmt: skip


NAMES = {"random": "random directions", "orthogonal_to_atom": "directions orthogonal to the atom"}
COLOURS = dict(zip(AGAINST, ("var(--random)", "var(--violet)"), strict=True))


def finding(result: Result[SelectivityConfig, Summary]) -> str:
    """How many of the most moved tokens are an atom's own."""
    cell = result.summary.cells[0]
    number = f"n = {words.plural(cell.atoms, 'atom')}, {words.plural(cell.firings, 'firing')}"
    if too_small(cell.above):
        return (
            f"Too small to decide whether atoms move tokens of their own: {_where(cell)}, only "
            f"{words.percent(cell.above)} of firings move them more than rounding does ({number})."
        )
    said = [
        f"{words.percent(value)} against {NAMES[name]} (95 % interval over atoms "
        f"{words.interval(cell.intervals[name])})"
        for name, value in cell.selectivity.items()
    ]
    return (
        f"Of the {result.config.top} tokens that an atom moves most, the share that another direction of the same size "
        f"does not move as much is {' and '.join(said)}; {_where(cell)}, {number}, {words.percent(cell.above)} of them "
        "above rounding."
    )


def panel(result: Result[SelectivityConfig, Summary]) -> Panel:
    """Each atom's selectivity against every other direction, and the means."""
    cells = result.summary.cells
    rows = [
        (
            f"against {NAMES[name]}, {_where(cell)}", words.percent(cell.selectivity[name]),
            words.interval(cell.intervals[name]), words.count(cell.atoms), words.percent(cell.above),
            words.percent(cell.above_selectivity[name]),
        )
        for cell in cells for name in AGAINST
    ]  # fmt: skip
    head = ("direction", "selectivity", "95 % interval", "atoms", "above rounding", "selectivity of those")
    note = (
        "Selectivity: one minus the share of most moved tokens in common. 100 %: none is shared. A firing is above "
        "rounding where everything that is added there moves the next token more than rounding does: below it any two "
        "directions move different tokens."
    )
    first = result.records[
        (result.records.timing == cells[0].timing) & (result.records.native_write == cells[0].native_write)
    ]
    return Panel((_distribution(of_atoms(first), cells[0]), _means(cells)), Table(head, rows), note)


def _where(cell: Cell) -> str:
    return f"{words.timing(cell.timing)}, at the {cell.native_write} write\u2019s norm"


def _distribution(atoms: pd.DataFrame, cell: Cell) -> Plot:
    figure = canvas()
    edges = np.linspace(min(float(np.floor(20 * atoms.min().min()) / 20), 0.95), 1, 25)
    for name, colour in COLOURS.items():
        histogram(figure, atoms[name].to_numpy(), edges, f"against {NAMES[name]}", colour, "selectivity", 0.55)
    figure.update_xaxes(title="selectivity of an atom", tickformat=".0%")
    figure.update_yaxes(title="atoms", rangemode="tozero")
    caption = f"{words.count(len(atoms))} atoms, each a mean over its firings; {_where(cell)}."
    return Plot("atoms", "Atom by atom", figure, caption)


def _means(cells: tuple[Cell, ...]) -> Plot:
    figure = canvas()
    lines = [(name, cell) for name in AGAINST for cell in cells]
    lines_of(figure, [f"{NAMES[name]}, {words.timing(cell.timing)}, {cell.native_write}" for name, cell in lines])
    for i, (name, cell) in enumerate(lines):
        dot = Dot(f"against {NAMES[name]}, {_where(cell)}", cell.selectivity[name], cell.intervals[name])
        dots(figure, name, [dot], COLOURS[name], float(i), words.percent)
    upright(figure, 1.0)
    figure.update_layout(showlegend=False)
    figure.update_xaxes(title="mean selectivity", tickformat=".0%")
    caption = "Bars: 95 % bootstrap intervals over atoms. Dashed: no token in common."
    return Plot("means", "Over all atoms", figure, caption)
