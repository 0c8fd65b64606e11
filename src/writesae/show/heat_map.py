"""Numbers by row and column, as shaded cells."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from writesae.show.figures import canvas, label, rounded
from writesae.show.words import finite
from writesae.types import Site

MOST_COLUMNS = 12
"""Columns of a heat map that are named; of more, every second, third and so on is."""

DEEP = 0.62
"""From this share of the shading on, a number in a cell is written in the colour for dark ground."""


@dataclass(frozen=True)
class Grid:
    """Numbers by row and column, None where there is none. A column's name may have several lines."""

    rows: list[str]
    columns: list[str]
    values: list[list[float | None]]
    texts: list[list[str]] | None = None
    """What is written in the cells, where it is not the numbers."""


def by_head(values: Mapping[Site, float]) -> Grid:
    """One number a head: layers down, heads across."""
    layers, heads = sorted({site.layer for site in values}), sorted({site.head for site in values})
    rows = [[values.get(Site(layer, head)) for head in heads] for layer in layers]
    return Grid([f"L{layer}" for layer in layers], [f"H{head}" for head in heads], rows)


def heat_map(
    grid: Grid,
    write: Callable[[float | None], str],
    *,
    floor: float | None = None,
    around: float | None = None,
    signed: bool = False,
    ringed: Sequence[tuple[int, int]] = (),
    marked: Mapping[tuple[int, int], str] | None = None,
) -> go.Figure:
    """Cells shaded by value, linearly; by logarithm above `floor`; by logarithm to both sides of `around`; or `signed`,
    linearly to both sides of 0.

    `ringed` cells (row, column) are outlined, `marked` ones too, with their name under the number.
    """

    def scaled(value: float | None) -> float | None:
        if value is None or not finite(value):
            return None
        if around is not None:
            return math.log(max(value, 1e-12) / around)
        return value if floor is None else math.log(max(value, floor))

    def written(row: int, column: int) -> str:
        value = grid.values[row][column]
        if grid.texts is not None:
            return label(grid.texts[row][column])
        return "\u2248 0" if floor is not None and value is not None and value < floor else write(value)

    shades = [[scaled(value) for value in row] for row in grid.values]
    known = [shade for row in shades for shade in row if shade is not None]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    both_sides = around is not None or signed
    if both_sides:
        high = max(abs(low), abs(high)) or 1.0
        low = -high
    wide = len(grid.columns) > 8
    names = {place: f"<br>{label(name)}" for place, name in (marked or {}).items()}
    cold, middle, hot = ("var(--write)", "var(--sunken)", "var(--heat)")
    scale = [[0, middle], [1, hot]] if not both_sides else [[0, cold], [0.5, middle], [1, hot]]
    row = 20 if wide else min(80, max(34, 250 // max(1, len(grid.rows))))
    heads = ["<br>".join(map(label, name.split("\n"))) for name in grid.columns]
    figure = canvas(50 + row * len(grid.rows) + 15 * max(name.count("\n") for name in grid.columns))
    figure.add_trace(
        go.Heatmap(
            z=[rounded(row) for row in shades],
            x=heads,
            y=[label(name) for name in grid.rows],
            zmin=low,
            zmax=high if high > low else low + 1,
            colorscale=scale,
            showscale=False,
            xgap=1 if wide else 3,
            ygap=1 if wide else 3,
            text=[
                [written(r, c) if value is not None else "" for c, value in enumerate(row)]
                for r, row in enumerate(grid.values)
            ],
            hovertemplate="%{y} %{x}: %{text}<extra></extra>",
            hoverongaps=False,
        )
    )
    if not wide:
        cells = [(r, c, s) for r, line in enumerate(shades) for c, s in enumerate(line) if s is not None]
        reach = (high if both_sides else high - low) or 1.0
        deep = [abs(s - (0.0 if both_sides else low)) / reach > DEEP for _, _, s in cells]
        figure.add_trace(
            go.Scatter(
                x=[heads[c] for _, c, _ in cells],
                y=[label(grid.rows[r]) for r, _, _ in cells],
                text=[written(r, c) + names.get((r, c), "") for r, c, _ in cells],
                mode="text",
                textfont={"size": 12, "color": ["var(--heat-ink)" if d else "var(--ink)" for d in deep]},
                hoverinfo="skip",
                showlegend=False,
            )
        )
    figure.update_yaxes(autorange="reversed", showgrid=False, ticks="", type="category")
    named = heads[:: -(-len(heads) // MOST_COLUMNS)]
    figure.update_xaxes(side="top", showgrid=False, ticks="", type="category", tickangle=0, tickvals=named)
    for row, column in (*ringed, *names):
        sides = {"x0": column - 0.48, "x1": column + 0.48, "y0": row - 0.47, "y1": row + 0.47}
        figure.add_shape(type="rect", line={"color": "var(--write)", "width": 3}, **sides)
    return figure
