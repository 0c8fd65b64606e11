"""Interactive figures, as Plotly figures whose colours are the page's CSS variables (resolved in report.js)."""

from __future__ import annotations

import html
from dataclasses import dataclass, field

import numpy as np
import plotly.graph_objects as go

from writesae.report import words
from writesae.report.records import Firings, Floats, HistoryRow, TargetRun

MOST_POINTS = 1500
"""Points drawn a series; a longer series is thinned evenly, and the caption says so."""

_HOVER_CHARACTERS = 110


@dataclass(frozen=True)
class Scatter:
    """A KL scatter with what its caption must say."""

    figure: go.Figure
    hovers: list[str]
    """Hover text by index; the figure's customdata are indices, so that both series share it."""
    drawn: int
    scored: int
    floor: float
    """KLs below this (numerical zero) are drawn at it."""
    floored: int
    controls: tuple[str, ...] = field(default=("delete", "random"))


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
    figure.add_trace(
        go.Scatter(
            x=[low, high],
            y=[low, high],
            mode="lines",
            line={"color": "var(--rule-strong)", "width": 1.5, "dash": "dot"},
            hoverinfo="skip",
            showlegend=False,
        )
    )
    series = (
        ("random", "circle-open", 0.75, 1, "against random rank-1"),
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
                hovertemplate=f"%{{customdata}}<br><br>KL atom %{{x:.3g}}<br>KL {name} %{{y:.3g}}<extra></extra>",
            )
        )
    bounds = [float(np.log10(low)), float(np.log10(high))]
    ticks = {"type": "log", "range": bounds, "dtick": 1, "exponentformat": "power"}
    figure.update_xaxes(title="KL with the atom in place of the write (nats)", **ticks)
    figure.update_yaxes(title="KL of the control (nats)", **ticks)
    figure.add_annotation(
        xref="paper", yref="paper", x=0.02, y=0.98, text="atom disturbs less", showarrow=False, font={"size": 12}
    )
    figure.add_annotation(
        xref="paper", yref="paper", x=0.98, y=0.02, text="control disturbs less", showarrow=False, font={"size": 12}
    )
    figure.update_layout(legend={"traceorder": "reversed"})
    return Scatter(figure, [_hover(firings, int(row)) for row in rows], len(rows), scored, floor, floored)


def training(targets: list[TargetRun], quantity: str) -> go.Figure:
    """One curve a target of `explained_variance` or `alive` against training tokens."""
    figure = _figure()
    for target in targets:
        points = [(row.tokens, _value(row, quantity)) for row in target.history]
        kept = [(tokens, value) for tokens, value in points if value is not None]
        figure.add_trace(
            go.Scatter(
                x=[tokens for tokens, _ in kept],
                y=[round(value, 5) for _, value in kept],
                name=target.name,
                mode="lines",
                line={"color": f"var(--{target.name}, var(--ink))", "width": 2.25},
                hovertemplate=f"{html.escape(target.name)}: %{{y}}<extra></extra>",
            )
        )
    figure.update_xaxes(title="training tokens", exponentformat="none", separatethousands=True)
    figure.update_yaxes(title=quantity.replace("_", " "), rangemode="tozero" if quantity == "alive" else "normal")
    figure.update_layout(hovermode="x")
    return figure


def _value(row: HistoryRow, quantity: str) -> float | None:
    return row.alive if quantity == "alive" else row.explained_variance


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
    """Where numerical zeros are drawn: a KL under 1e-9 nats says nothing in single precision."""
    positive = values[values > 1e-9]
    return float(positive.min()) if positive.size else 1e-9


def _limits(columns: dict[str, Floats], floor: float) -> tuple[float, float]:
    top = max((float(column.max()) for column in columns.values() if column.size), default=1.0)
    return floor / 1.6, max(top, floor * 10) * 1.6


def _rounded(values: Floats) -> list[float]:
    return [float(f"{value:.4g}") for value in values]


def _hover(firings: Firings, row: int) -> str:
    """Plotly reads a subset of HTML in hover text, so corpus text is escaped for it here."""
    token, context = firings.token[row], firings.context[row]
    marked = words.visible_token(token)
    before = words.visible(context[: -len(token)] if token and context.endswith(token) else context)
    before = "…" + before[-_HOVER_CHARACTERS:] if len(before) > _HOVER_CHARACTERS else before
    text = _wrapped(before)
    if token:
        text += f"<b>[{_escape(marked)}]</b>"
    return (
        f"{text}<br>feature {firings.feature[row]}, coefficient {firings.coefficient[row]:.3g}, "
        f"cosine {firings.cosine[row]:.2f}"
    )


def _escape(text: str) -> str:
    return html.escape(text, quote=False)


def _wrapped(text: str, width: int = 44) -> str:
    lines, line = [], ""
    for word in text.split(" "):
        pieces = [word[start : start + width] for start in range(0, len(word), width)] or [""]
        for i, piece in enumerate(pieces):
            glue = " " if line and i == 0 else ""
            if len(line) + len(glue) + len(piece) > width:
                lines.append(line)
                line, glue = "", ""
            line += glue + piece
    lines.append(line)
    ending = " " if text.endswith(" ") else ""
    return "<br>".join(_escape(line) for line in lines) + ending
