"""Does an atom move its own tokens, or those that any direction of its size moves?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from writesae.evals.old.measured import Measured
from writesae.show import words
from writesae.show.figures import Dot, Interval, canvas, dots, histogram, lines_of, upright
from writesae.show.parts import Panel, Plot, Table

COLOURS = ("var(--random)", "var(--violet)", "var(--gold)", "var(--state)")


@dataclass(frozen=True)
class Summary:
    """Means over atoms of their mean over firings."""

    atoms: int
    selectivity: dict[str, float | None]
    intervals: dict[str, Interval | None]


def build(of: Measured) -> Panel:
    """Each atom's selectivity against every other direction, and the means."""
    summary = of.read(Summary)
    columns = {name: f"overlap_{name}" for name in summary.selectivity}
    records = of.numeric(["feature", *columns.values()])
    atoms = 1 - records.groupby("feature")[list(columns.values())].mean()
    top = of.setting(int, "top")
    said = [
        f"{words.percent(value)} against {_direction(name)} directions (95 % interval over atoms "
        f"{words.interval(summary.intervals.get(name))})"
        for name, value in summary.selectivity.items()
    ]
    finding = (
        f"Of the {top} tokens that an atom moves most, the share that another direction of the same size does not "
        "move as much "
        f"is {' and '.join(said)}; n = {words.plural(summary.atoms, 'atom')}, {words.plural(len(records), 'firing')}."
    )
    rows = [
        (
            f"against {_direction(name)}",
            words.percent(value),
            words.interval(summary.intervals.get(name)),
            words.count(summary.atoms),
        )
        for name, value in summary.selectivity.items()
    ]
    table = Table(("direction", "selectivity", "95 % interval", "atoms"), rows)
    note = "Selectivity: one minus the share of most moved tokens in common. 100 %: none is shared."
    return Panel(finding, (_distribution(atoms, list(columns)), _means(summary)), table, note)


def _direction(name: str) -> str:
    return name.replace("_", " ")


def _distribution(atoms: pd.DataFrame, names: list[str]) -> Plot:
    figure = canvas()
    low = float(np.floor(20 * atoms.min().min()) / 20) if len(atoms) else 0.0
    edges = np.linspace(min(low, 0.95), 1, 25)
    for name, colour in zip(names, COLOURS, strict=False):
        histogram(
            figure,
            atoms[f"overlap_{name}"].to_numpy(),
            edges,
            f"against {_direction(name)}",
            colour,
            "selectivity",
            0.55,
        )
    figure.update_xaxes(title="selectivity of an atom", tickformat=".0%")
    figure.update_yaxes(title="atoms", rangemode="tozero")
    return Plot("atoms", "Atom by atom", figure, f"{words.count(len(atoms))} atoms, each a mean over its firings.")


def _means(summary: Summary) -> Plot:
    figure = canvas()
    names = list(summary.selectivity)
    lines_of(figure, [f"against {_direction(name)}" for name in names])
    for i, (name, colour) in enumerate(zip(names, COLOURS, strict=False)):
        entries = [Dot(f"against {_direction(name)}", summary.selectivity[name], summary.intervals.get(name))]
        dots(figure, name, entries, colour, float(i), words.percent)
    upright(figure, 1.0)
    figure.update_layout(showlegend=False, height=330)
    figure.update_xaxes(title="mean selectivity", tickformat=".0%")
    return Plot(
        "means", "Over all atoms", figure, "Bars: 95 % bootstrap intervals over atoms. Dashed: no token in common."
    )
