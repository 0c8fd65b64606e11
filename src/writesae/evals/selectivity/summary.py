"""Mean selectivity over atoms, by timing, form of the native write, and what the atom is compared with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import pandas as pd

from writesae.evals.common.cells import AtTiming, Cells, Column, OfWrite, cells, inside, table_of
from writesae.evals.common.conditions import ADDED, ADDED_WHERE
from writesae.evals.common.floor import above, too_small
from writesae.evals.common.result import Result
from writesae.evals.common.stats import Interval, clustered
from writesae.evals.selectivity import SelectivityConfig
from writesae.show import words
from writesae.show.figures import Dot, canvas, histogram, whiskers
from writesae.show.parts import Panel, Plot

AGAINST = {
    "random": ("random directions", "random"),
    "orthogonal_to_atom": ("directions orthogonal to the atom", "violet"),
}
"""What an atom is compared with: name and colour."""
BY = ("timing", "native_write")
COLUMNS = ADDED_WHERE | {
    "kl_*": "KL(native || patched) where this is added: atom, random, orthogonal_to_atom; nats",
    "floor": "KL between two native runs whose rounding differs, nats",
    "overlap_*": "share of the most moved tokens that the atom has in common with this direction",
}


@dataclass(frozen=True)
class Cell:
    """Under one timing and form of the native write, against one kind of direction: means over atoms of their means
    over firings."""

    against: Annotated[str, Column("against", lambda name: AGAINST[name][0])]
    timing: AtTiming
    native_write: OfWrite
    selectivity: Annotated[float, Column("selectivity", words.percent)]
    interval: Annotated[Interval, Column("95 % interval", words.interval)]
    """Bootstrap over atoms."""
    atoms: Annotated[int, Column("atoms", words.count)]
    firings: int
    above: Annotated[float, Column("above rounding", words.percent)]
    """Share of firings at which all that was added moves more than rounding does."""
    among: Annotated[float, Column("selectivity of those", words.percent)]
    """Over the firings above rounding alone."""

    @property
    def where(self) -> str:
        """In words."""
        return f"{words.timing(self.timing)}, at the {self.native_write} write\u2019s norm"


Summary = Cells[Cell]


def summarise(tables: Mapping[str, pd.DataFrame], config: SelectivityConfig) -> Summary:
    """The summary of the records."""
    found = []
    for how, part in cells(tables["records"], BY):
        means, seen = of_atoms(part), above(part[[f"kl_{name}" for name in ADDED]].min(axis=1), part.floor)
        among = of_atoms(part[seen])
        found += [
            Cell(
                name, **how, selectivity=float(means[name].mean()),
                interval=clustered(means[name], means.index, config.seed), atoms=len(means), firings=len(part),
                above=float(np.mean(seen)), among=float(among[name].mean()),
            )
            for name in AGAINST
        ]  # fmt: skip
    return Cells(tuple(found))


def of_atoms(records: pd.DataFrame) -> pd.DataFrame:
    """One row an atom (the index): its mean selectivity against each direction."""
    own = 1 - records.groupby("feature")[[f"overlap_{name}" for name in AGAINST]].mean()
    return own.rename(columns=lambda name: str(name).removeprefix("overlap_"))


def finding(result: Result[SelectivityConfig, Summary]) -> str:
    """How many of the most moved tokens are an atom's own."""
    own = result.summary.alike(*BY)[0]
    cell = own[0]
    number = f"n = {words.plural(cell.atoms, 'atom')}, {words.plural(cell.firings, 'firing')}"
    if too_small(cell.above):
        return (
            f"Too small to decide whether atoms move tokens of their own: {cell.where}, only "
            f"{words.percent(cell.above)} of firings move them more than rounding does ({number})."
        )
    said = [
        f"{words.percent(c.selectivity)} against {AGAINST[c.against][0]} (95 % interval over atoms "
        f"{words.interval(c.interval)})"
        for c in own
    ]
    return (
        f"Of the {result.config.top} tokens that an atom moves most, the share that another direction of the same size "
        f"does not move as much is {' and '.join(said)}; {cell.where}, {number}, {words.percent(cell.above)} of them "
        "above rounding."
    )


def panel(result: Result[SelectivityConfig, Summary]) -> Panel:
    """Each atom's selectivity against every other direction, and the means."""
    summary = result.summary
    first = summary.cells[0]
    note = (
        "Selectivity: one minus the share of most moved tokens in common. 100 %: none is shared. A firing is above "
        "rounding where everything that is added there moves the next token more than rounding does: below it any two "
        "directions move different tokens."
    )
    plots = (_distribution(of_atoms(inside(result.records, first, BY)), first), _means(summary))
    return Panel(plots, table_of(Cell, summary.cells), note)


def _distribution(atoms: pd.DataFrame, cell: Cell) -> Plot:
    figure = canvas()
    edges = np.linspace(min(float(np.floor(20 * atoms.min().min()) / 20), 0.95), 1, 25)
    for against, (name, colour) in AGAINST.items():
        histogram(figure, atoms[against].to_numpy(), edges, f"against {name}", colour, "selectivity", 0.55)
    figure.update_xaxes(title="selectivity of an atom", tickformat=".0%")
    figure.update_yaxes(title="atoms", rangemode="tozero")
    caption = f"{words.count(len(atoms))} atoms, each a mean over its firings; {cell.where}."
    return Plot("atoms", "Atom by atom", figure, caption)


def _means(summary: Summary) -> Plot:
    lines = []
    for against, (name, colour) in AGAINST.items():
        for cell in summary.where(against=against):
            dot = Dot(f"against {name}, {cell.where}", cell.selectivity, cell.interval)
            lines.append((f"{name}, {words.timing(cell.timing)}, {cell.native_write}", colour, dot))
    figure = whiskers(lines, words.percent, 1.0)
    figure.update_xaxes(title="mean selectivity", tickformat=".0%")
    caption = "Bars: 95 % bootstrap intervals over atoms. Dashed: no token in common."
    return Plot("means", "Over all atoms", figure, caption)
