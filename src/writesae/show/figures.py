"""The parts that figures are built from. Colours are CSS variables: report.js or `palette.standalone` resolves them."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go
from numpy.typing import ArrayLike

from writesae.show import words

Floats = npt.NDArray[np.float64]
Interval = tuple[float, float]

MOST_POINTS = 1500
"""Points drawn a series; a longer series is thinned evenly, and the caption says so."""

NUMERICAL_ZERO = 1e-9
"""KLs below this many nats say nothing in single precision."""

ROW = 30
"""Height in pixels of one line of a dot-and-whisker chart."""


def canvas(height: int = 330) -> go.Figure:
    """An empty figure in the page's style."""
    axis = {
        "gridcolor": "var(--rule)", "linecolor": "var(--rule-strong)", "zeroline": False,
        "zerolinecolor": "var(--rule-strong)", "ticks": "outside", "ticklen": 4, "tickcolor": "var(--rule-strong)",
        "title": {"font": {"size": 13}, "standoff": 10}, "automargin": True,
    }  # fmt: skip
    hover = {"family": "var(--sans)", "size": 13, "color": "var(--ink)"}
    return go.Figure(
        layout={
            "template": None, "height": height, "paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)",
            "font": {"family": "var(--sans)", "size": 12, "color": "var(--ink-soft)"},
            "margin": {"l": 8, "r": 14, "t": 8, "b": 8}, "xaxis": axis, "yaxis": axis, "barmode": "overlay",
            "bargap": 0.04,
            "legend": {
                "orientation": "h", "x": 0, "y": 1.02, "xanchor": "left", "yanchor": "bottom", "font": {"size": 13},
            },
            "hoverlabel": {
                "bgcolor": "var(--paper)", "bordercolor": "var(--rule-strong)", "align": "left", "font": hover,
            },
        }
    )  # fmt: skip


def label(text: object) -> str:
    """Text from a result file, as Plotly may show it: never markup, never a template."""
    return html.escape(words.visible(str(text))).replace("%{", "%\u200b{")


def rounded(values: Floats | Sequence[float | None]) -> list[float | None]:
    """Four significant digits, which is finer than any screen; None where there is no number."""
    return [float(f"{v:.4g}") if v is not None and words.finite(float(v)) else None for v in values]


def thinned(n: int, most: int = MOST_POINTS) -> list[int]:
    """At most `most` of n indices, evenly spaced."""
    return np.linspace(0, n - 1, min(n, most)).round().astype(int).tolist() if n else []


def drawn_of(drawn: int, all_of_them: int, what: str) -> str:
    """What a caption says about a thinned series."""
    if drawn == all_of_them:
        return f"{words.count(drawn)} {what}."
    return f"{words.count(drawn)} of {words.count(all_of_them)} {what} drawn, evenly thinned."


def marks(
    figure: go.Figure, x: ArrayLike, y: ArrayLike, colour: str, size: float, opacity: float, says: str, **more: Any
) -> None:
    """A dot for every (x, y); `says` is what pointing at one shows, and `more` goes to Plotly's scatter."""
    marker = {"color": f"var(--{colour})", "size": size, "opacity": opacity}
    _scatter(figure, x, y, says, {"mode": "markers", "marker": marker} | more)


def curve(
    figure: go.Figure, x: ArrayLike, y: ArrayLike, colour: str, width: float, says: str, dash: str = "solid",
    **more: Any,
) -> None:  # fmt: skip
    """A line through every (x, y), likewise."""
    line = {"color": f"var(--{colour})", "width": width, "dash": dash}
    _scatter(figure, x, y, says, {"mode": "lines", "line": line} | more)


def _scatter(figure: go.Figure, x: ArrayLike, y: ArrayLike, says: str, about: Mapping[str, object]) -> None:
    places = {axis: rounded(np.asarray(values, float)) for axis, values in (("x", x), ("y", y))}
    figure.add_trace(go.Scatter(**places, hovertemplate=f"{says}<extra></extra>", **about))


def level(figure: go.Figure, y: float, dash: str = "dash") -> None:
    """A reference line at one y."""
    figure.add_hline(y=y, line={"color": "var(--ink-soft)", "width": 1.25, "dash": dash})


@dataclass(frozen=True)
class Dot:
    """A value with its interval, on one line of a chart."""

    line: str
    value: float | None
    interval: Interval | None
    text: str = ""
    """What pointing at it says, beside the value."""


def dots(
    figure: go.Figure, series: str, entries: Sequence[Dot], colour: str, shift: float,
    write: Callable[[float | None], str], hollow: bool = False, symbol: str = "circle",
) -> None:  # fmt: skip
    """One dot with its whiskers a line; `shift` moves a series off the line's middle, up to half a line."""
    ink = f"var(--{colour})"
    line = {"color": ink, "width": 2}
    kept = [(i, e) for i, e in enumerate(entries) if words.finite(e.value)]
    values = [float(e.value or 0.0) for _, e in kept]
    bounds = [e.interval or (v, v) for (_, e), v in zip(kept, values, strict=True)]

    def says(e: Dot) -> str:
        about = [label(e.line), write(e.value), label(e.text)]
        if e.interval:
            about[1] += f" [{write(e.interval[0])}, {write(e.interval[1])}]"
        return "<br>".join(filter(None, about))

    figure.add_trace(
        go.Scatter(
            x=rounded(values),
            y=[i + shift for i, _ in kept],
            name=label(series),
            mode="markers",
            marker={"color": "var(--surface)" if hollow else ink, "size": 9, "symbol": symbol, "line": line},
            error_x=interval_bars(values, bounds, ink, 2.5),
            text=[says(e) for _, e in kept],
            hovertemplate="%{text}<extra></extra>",
        )
    )


def interval_bars(values: Sequence[float], bounds: Sequence[Interval], ink: str, thickness: float) -> dict[str, object]:
    """Plotly's error bars from each value to both ends of its interval."""
    ends = [(high - value, value - low) for value, (low, high) in zip(values, bounds, strict=True)]
    over, under = (rounded([end[side] for end in ends]) for side in (0, 1))
    about = {"type": "data", "symmetric": False, "color": ink, "thickness": thickness, "width": 0}
    return about | {"array": over, "arrayminus": under}


def lines_of(figure: go.Figure, names: Sequence[str], series: int = 1) -> None:
    """Name the lines of a dot chart, the first on top, and give it its height: room for `series` dots a line, and for
    as many in the legend."""
    figure.update_yaxes(
        tickvals=list(range(len(names))),
        ticktext=[label(name) for name in names],
        range=[len(names) - 0.5, -0.5],
        showgrid=False,
        ticks="",
    )
    row = max(ROW * 1.25, 13 * series)
    figure.update_layout(height=80 + 10 * series + round(row * max(2, len(names))))


def whiskers(
    lines: Sequence[tuple[str, str, Dot]], write: Callable[[float | None], str], at: float, text: str = ""
) -> go.Figure:
    """One dot with its whiskers a line (name, colour, dot), about a reference at one x, which `text` names."""
    figure = canvas()
    lines_of(figure, [name for name, _, _ in lines])
    for i, (name, colour, dot) in enumerate(lines):
        dots(figure, name, [dot], colour, float(i), write)
    upright(figure, at, text, dash="solid" if text else "dash")
    figure.update_layout(showlegend=False)
    return figure


def log_ticks(low: float, high: float) -> dict[str, object]:
    """Settings of a logarithmic axis from `low` to `high`: at most six labelled decades, or 1, 2, 5 if narrow."""
    bounds = [math.log10(low), math.log10(high)]
    axis: dict[str, object] = {"type": "log", "range": bounds, "tickangle": 0, "tickfont": {"size": 11}}
    if bounds[1] - bounds[0] < 1.5:
        powers = range(math.floor(bounds[0]), math.ceil(bounds[1]) + 1)
        marks = [m * 10.0**p for p in powers for m in (1, 2, 5) if low <= m * 10.0**p <= high]
        return axis | {"tickvals": marks, "ticktext": [words.tick(mark) for mark in marks]}
    return axis | {"dtick": max(1, round((bounds[1] - bounds[0]) / 5)), "exponentformat": "power"}


def upright(
    figure: go.Figure, x: float, text: str = "", dash: str = "dash", colour: str = "ink-soft", width: float = 1.25
) -> None:
    """A reference line at one x, named at its top."""
    figure.add_vline(x=x, line={"color": f"var(--{colour})", "width": width, "dash": dash})
    if text:
        at = {"x": x, "y": 1, "yref": "paper", "yanchor": "top", "xanchor": "left", "xshift": 4}
        figure.add_annotation(text=text, showarrow=False, font={"size": 12}, **at)


def diagonal(figure: go.Figure, low: float, high: float) -> None:
    """The line where both axes are equal."""
    line = {"color": "var(--ink)", "width": 1.5, "dash": "dot"}
    ends = [low, high]
    figure.add_trace(go.Scatter(x=ends, y=ends, mode="lines", line=line, hoverinfo="skip", showlegend=False))


def corner(figure: go.Figure, text: str, *, top: bool, left: bool) -> None:
    """A word in a corner of the plot, on a ground that keeps it readable over points."""
    x, xanchor = (0.02, "left") if left else (0.98, "right")
    y, yanchor = (0.98, "top") if top else (0.02, "bottom")
    figure.add_annotation(
        xref="paper", yref="paper", x=x, y=y, xanchor=xanchor, yanchor=yanchor, text=text, showarrow=False,
        font={"size": 12, "color": "var(--ink)"}, bgcolor="var(--surface)", opacity=0.85,
    )  # fmt: skip


def bars(
    figure: go.Figure,
    counts: Sequence[int],
    edges: Floats,
    texts: Sequence[str],
    colour: str,
    says: str,
    **more: object,
) -> None:
    """Bars between each two edges, with what pointing at one shows (`%{text}`: its own text)."""
    about = {"text": texts, "textposition": "none", "hovertemplate": f"{says}<extra></extra>"} | more
    x, width = rounded((edges[:-1] + edges[1:]) / 2), rounded(np.diff(edges) * 0.96)
    figure.add_trace(go.Bar(x=x, y=counts, width=width, marker_color=f"var(--{colour})", **about))


def histogram(
    figure: go.Figure, values: Floats, edges: Floats, name: str, colour: str, unit: str, opacity: float = 0.62
) -> None:
    """Bars of how many values lie between each two edges. The last bin holds its upper edge."""
    spans = [f"{words.quantity(float(a))} to {words.quantity(float(b))}" for a, b in pairwise(edges)]
    more = {"name": label(name), "marker_opacity": opacity, "marker_line_width": 0}
    bars(figure, np.histogram(values, edges)[0].tolist(), edges, spans, colour, f"{unit} %{{text}}: %{{y}}", **more)


def stacked(
    figure: go.Figure, names: Sequence[str], series: Mapping[str, Sequence[int]], colours: Mapping[str, str]
) -> None:
    """Counts on top of each other, one bar a name, with the numbers in them."""
    for kind, sizes in series.items():
        figure.add_trace(
            go.Bar(
                x=[label(name) for name in names],
                y=list(sizes),
                name=label(kind),
                marker={"color": f"var(--{colours[kind]})", "opacity": 0.75},
                text=list(sizes),
                texttemplate="%{text}",
                textposition="inside",
                textangle=0,
                insidetextfont={"color": "var(--heat-ink)"},
                hovertemplate=f"%{{x}}: %{{y}} {label(kind)}s<extra></extra>",
            )
        )
    figure.update_layout(barmode="stack", bargap=0.3)
