"""How something changes with a dose: one line a condition, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import plotly.graph_objects as go

from writesae.show.figures import Interval, canvas, interval_bars, label, level, rounded
from writesae.show.words import finite

C = TypeVar("C")
DIRECTIONS: dict[str, tuple[str, str]] = {
    "closed": ("closed", "delete"),
    "exact": ("exact", "atom"),
    "random": ("random", "random"),
}
"""What is written for a target: its name and colour."""

APART = 0.012
"""Distance of two lines' points, as a share of the axis, so that intervals do not hide each other."""


@dataclass(frozen=True)
class Point:
    """One value at one dose."""

    dose: float
    value: float
    interval: Interval | None = None


@dataclass(frozen=True)
class Curve:
    """One condition."""

    name: str
    colour: str
    points: Sequence[Point]


def curves_of(
    cells: Iterable[C], by: str, names: Mapping[str, tuple[str, str]], point: Callable[[C], Point]
) -> list[Curve]:
    """A curve for each value of one field of the cells; `names` has its name and colour."""
    found = dict[str, list[Point]]()
    for cell in cells:
        found.setdefault(getattr(cell, by), []).append(point(cell))
    return [Curve(*names[value], own) for value, own in found.items()]


def by_dose(
    curves: Sequence[Curve], x: str, y: str, write: Callable[[float], str], across: float | None = None,
    share: bool = False,
) -> go.Figure:  # fmt: skip
    """The curves over their doses; `across` is a line of what is without any. `share` writes the axis in percent."""
    figure = canvas(330)
    doses = sorted({p.dose for curve in curves for p in curve.points})
    step = APART * ((doses[-1] - doses[0]) or 1.0) if doses else 0.0
    for index, curve in enumerate(curves):
        ink = f"var(--{curve.colour})"
        kept = sorted((p for p in curve.points if finite(p.value)), key=lambda p: p.dose)
        bounds = [p.interval if p.interval and all(map(finite, p.interval)) else (p.value, p.value) for p in kept]
        text = [
            f"{label(curve.name)}<br>{p.dose:g}: {write(p.value)} [{write(low)}, {write(high)}]"
            for p, (low, high) in zip(kept, bounds, strict=True)
        ]
        figure.add_trace(
            go.Scatter(
                x=rounded([p.dose + step * (index - (len(curves) - 1) / 2) for p in kept]),
                y=rounded([p.value for p in kept]),
                name=label(curve.name),
                mode="lines+markers",
                line={"color": ink, "width": 2},
                marker={"color": ink, "size": 8},
                error_y=interval_bars([p.value for p in kept], bounds, ink, 2),
                text=text,
                hovertemplate="%{text}<extra></extra>",
            )
        )
    if across is not None:
        level(figure, across)
    ticks = {"tickvals": doses, "ticktext": [f"{dose:g}" for dose in doses]} if len(doses) < 9 else {}
    figure.update_xaxes(title=x, **ticks)
    figure.update_yaxes(title=y, tickformat=".0%" if share else None)
    return figure
