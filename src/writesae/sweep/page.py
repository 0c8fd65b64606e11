"""A sweep's table as one self-contained page: each axis with its values beside each other, then every run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go

from writesae.disk import write_text
from writesae.show import words
from writesae.show.document import Chapter, document, render
from writesae.show.figures import Dot, canvas, dots, lines_of
from writesae.show.parts import Plot
from writesae.sweep.compare import SEED, Level, levels
from writesae.sweep.config import Sweep
from writesae.sweep.numbers import COMPARED, TRAINED

PAGE = "sweep.html"
TEMPLATES = Path(__file__).parent / "templates"
COLOURS = ("state", "write", "atom")


def write_page(folder: Path, plan: Sweep, table: pd.DataFrame) -> Path:
    """Write the page into a folder and return its path."""
    path = folder / PAGE
    write_text(path, page(plan, table))
    return path


def page(plan: Sweep, table: pd.DataFrame) -> str:
    """The page as text; equal tables give equal bytes."""
    hosts = ", ".join(dict.fromkeys(table.host))
    wrong = table[table.problem != ""]
    chapters = [Chapter("sweep", "Sweep", render("sweep", TEMPLATES, plan=plan, hosts=hosts, table=table, wrong=wrong))]
    axes = [axis for axis in (*(["host"] if len(plan.hosts) > 1 else []), *plan.axes) if axis != SEED]
    for axis in axes:
        found = {number: levels(table, list(plan.grid), axis, number) for number in compared(table)}
        chapters += _axis(axis, {number: own for number, own in found.items() if own}, table)
    body = render("runs", TEMPLATES, head=list(table.columns), rows=[[_cell(x) for x in row] for row in table.values])
    return document(f"Sweep, {hosts}", [*chapters, Chapter("runs", "Every run", body)])


def compared(table: pd.DataFrame) -> list[str]:
    """The columns that a page compares: of training, and what the evaluations found."""
    return [name for name in table.columns if name in COMPARED or (": " in name and not name.endswith(": n"))]


def _axis(axis: str, found: dict[str, list[Level]], table: pd.DataFrame) -> list[Chapter]:
    if not found:
        return []
    plots = {
        f"{axis}-{i}": Plot(f"{axis}-{i}", TRAINED.get(number, number), _figure(own, number, COLOURS[i % len(COLOURS)]))
        for i, (number, own) in enumerate(found.items())
    }
    rows = [
        (TRAINED.get(number, number), level, i == 0) for number, own in found.items() for i, level in enumerate(own)
    ]
    refused = table[table.refused != ""].groupby(axis).refused.agg(lambda said: "; ".join(dict.fromkeys(said)))
    body = render("axis", TEMPLATES, axis=axis, plots=plots, rows=rows, refused=dict(refused))
    return [Chapter(f"axis-{axis}", axis, body, plots)]


def _figure(own: Sequence[Level], number: str, colour: str) -> go.Figure:
    figure = canvas()
    lines_of(figure, [level.value for level in own])
    entries = [
        Dot(level.value, level.mean, level.interval if words.finite(level.interval[0]) else None, f"{level.runs} runs")
        for level in own
    ]
    dots(figure, number, entries, colour, 0.0, words.percent)
    figure.update_xaxes(tickformat=".0%")
    figure.update_layout(showlegend=False)
    return figure


def _cell(value: object) -> str:
    if isinstance(value, float):
        return words.quantity(value) if words.finite(value) else ""
    return str(value)
