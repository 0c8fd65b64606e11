"""Interactive figures, as Plotly figures whose colours are the page's CSS variables (resolved in report.js)."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go

from writesae.report import words
from writesae.report.records import Firings, Floats, TargetRun

NUMERICAL_ZERO = 1e-9
"""KLs below this many nats say nothing in single precision."""

LOWEST_EXPLAINED = -1.0
"""Where the axis of explained variance ends: an untrained dictionary can lie far below."""

MOST_POINTS = 1500
"""Points drawn a series; a longer series is thinned evenly, and the caption says so."""


class Reading(NamedTuple):
    """What the page shows about a firing that is pointed at: plain text, set as text."""

    before: str
    token: str
    numbers: str


@dataclass(frozen=True)
class Scatter:
    """A KL scatter with what its caption must say."""

    figure: go.Figure
    readings: list[Reading]
    """By index; the figure's customdata are indices, so that both series share them."""
    drawn: int
    scored: int
    floor: float
    """KLs below this (numerical zero) are drawn at it."""
    floored: int


def kl_scatter(firings: Firings) -> Scatter:
    """KL with the atom in place of the write (x) against the KL of each control (y), log-log.

    A point above the diagonal is a firing where the atom disturbs the next-token distribution less.
    """
    values = firings.kl
    finite = np.isfinite(np.stack([values["atom"], values["delete"], values["random"]])).all(axis=0)
    rows = np.flatnonzero(finite)
    scored = len(rows)
    if scored > MOST_POINTS:
        rows = rows[np.linspace(0, scored - 1, MOST_POINTS).round().astype(int)]
    shown = {name: values[name][rows] for name in ("atom", "delete", "random")}
    floor = _floor(np.concatenate(list(shown.values())) if len(rows) else np.ones(1))
    floored = int(sum((column < floor).sum() for column in shown.values()))
    clipped = {name: np.maximum(column, floor) for name, column in shown.items()}

    figure = _figure()
    low, high = _limits(clipped, floor)
    series = (
        ("random", "circle-open", 0.75, 1, "against random"),
        ("delete", "circle", 0.6, 0, "against delete"),
    )
    for name, symbol, opacity, line, label in series:
        figure.add_trace(
            go.Scatter(
                x=_rounded(clipped["atom"]),
                y=_rounded(clipped[name]),
                customdata=list(range(len(rows))),
                name=label,
                mode="markers",
                marker={
                    "color": f"var(--{name})",
                    "size": 5,
                    "opacity": opacity,
                    "symbol": symbol,
                    "line": {"width": line},
                },
                hovertemplate=f"KL atom %{{x:.3g}}<br>KL {name} %{{y:.3g}}<extra></extra>",
            )
        )
    figure.add_trace(
        go.Scatter(
            x=[low, high],
            y=[low, high],
            mode="lines",
            line={"color": "var(--ink)", "width": 1.5, "dash": "dot"},
            hoverinfo="skip",
            showlegend=False,
        )
    )
    bounds = [float(np.log10(low)), float(np.log10(high))]
    step = max(1, round((bounds[1] - bounds[0]) / 5))
    ticks = {
        "type": "log",
        "range": bounds,
        "dtick": step,
        "exponentformat": "power",
        "tickangle": 0,
        "tickfont": {"size": 10},
    }
    figure.update_xaxes(title="KL of the atom (nats)", **ticks)
    figure.update_yaxes(title="KL of the control (nats)", **ticks)
    figure.add_annotation(
        xref="paper", yref="paper", x=0.02, y=0.98, text="atom disturbs less", showarrow=False, font={"size": 12}
    )
    figure.add_annotation(
        xref="paper", yref="paper", x=0.98, y=0.02, text="control disturbs less", showarrow=False, font={"size": 12}
    )
    figure.update_layout(legend={"traceorder": "reversed"})
    return Scatter(figure, [_firing(firings, int(row)) for row in rows], len(rows), scored, floor, floored)


def explained(targets: list[TargetRun]) -> go.Figure:
    """Explained variance against training tokens: a line a target for training batches, dots for held-out text."""
    figure = _figure()
    for target in targets:
        _curve(figure, target, [(row.tokens, row.explained_variance) for row in target.history])
        held_out = [(row.tokens, row.held_out) for row in target.history]
        if any(value is not None for _, value in held_out):
            _curve(figure, target, held_out, suffix=", held out")
    values = [y for trace in figure.data for y in trace.y]
    bottom = max(LOWEST_EXPLAINED, min(values, default=0.0) - 0.03)
    figure.update_yaxes(title="explained variance", range=[bottom, max(values, default=1.0) + 0.05])
    return _against_tokens(figure)


def alive(targets: list[TargetRun]) -> go.Figure:
    """Alive features against training tokens, a line a target."""
    figure = _figure()
    for target in targets:
        _curve(figure, target, [(row.tokens, row.alive) for row in target.history])
    figure.update_yaxes(title="alive features", rangemode="tozero", separatethousands=True)
    return _against_tokens(figure)


def _curve(figure: go.Figure, target: TargetRun, points: Sequence[tuple[int, float | None]], suffix: str = "") -> None:
    kept = [(tokens, float(f"{value:.4g}")) for tokens, value in points if value is not None]
    colour, name = f"var(--{target.name}, var(--ink))", html.escape(target.name + suffix)
    figure.add_trace(
        go.Scatter(
            x=[tokens for tokens, _ in kept],
            y=[value for _, value in kept],
            name=name,
            mode="markers" if suffix else "lines",
            line={"color": colour, "width": 2.25},
            marker={"color": colour, "size": 6},
            showlegend=not suffix,
            hovertemplate=f"{name}: %{{y}}<extra></extra>",
        )
    )


def _against_tokens(figure: go.Figure) -> go.Figure:
    figure.update_xaxes(title="training tokens", exponentformat="none", separatethousands=True)
    figure.update_layout(hovermode="x")
    return figure


def _figure() -> go.Figure:
    axis = {
        "gridcolor": "var(--rule)",
        "linecolor": "var(--rule-strong)",
        "zeroline": False,
        "ticks": "outside",
        "ticklen": 4,
        "tickcolor": "var(--rule-strong)",
        "title": {"font": {"size": 13}, "standoff": 10},
        "automargin": True,
    }
    return go.Figure(
        layout={
            "template": None,
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "font": {"family": "var(--sans)", "size": 12, "color": "var(--ink-soft)"},
            "margin": {"l": 8, "r": 12, "t": 8, "b": 8},
            "xaxis": axis,
            "yaxis": axis,
            "legend": {
                "orientation": "h",
                "x": 0,
                "y": 1.02,
                "xanchor": "left",
                "yanchor": "bottom",
                "font": {"size": 13},
            },
            "hoverlabel": {
                "bgcolor": "var(--paper)",
                "bordercolor": "var(--rule-strong)",
                "align": "left",
                "font": {"family": "var(--sans)", "size": 13, "color": "var(--ink)"},
            },
        }
    )


def _floor(values: Floats) -> float:
    """Where numerical zeros are drawn."""
    positive = values[values > NUMERICAL_ZERO]
    return float(positive.min()) if positive.size else NUMERICAL_ZERO


def _limits(columns: dict[str, Floats], floor: float) -> tuple[float, float]:
    top = max((float(column.max()) for column in columns.values() if column.size), default=1.0)
    return floor / 1.6, max(top, floor * 10) * 1.6


def _rounded(values: Floats) -> list[float]:
    return [float(f"{value:.4g}") for value in values]


def _firing(firings: Firings, row: int) -> Reading:
    token, context = firings.token[row], firings.context[row]
    before = words.visible(context[: -len(token)] if token and context.endswith(token) else context)
    numbers = (
        f"feature {firings.feature[row]}, coefficient {words.quantity(float(firings.coefficient[row]))}, "
        f"cosine to the write {words.quantity(float(firings.cosine[row]))}"
    )
    return Reading(before.lstrip(), words.visible_token(token), numbers)
