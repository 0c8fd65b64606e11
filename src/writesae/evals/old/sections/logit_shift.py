"""Does a formula say how a rank-1 write moves the logits? Three predictors against what was measured."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from writesae.errors import DataError
from writesae.evals.old.measured import Measured
from writesae.show import words
from writesae.show.figures import Floats, canvas, diagonal, drawn_of, rounded, thinned
from writesae.show.parts import Panel, Plot, Table

PREDICTORS = {
    "closed": ("closed form", "var(--delete)"),
    "direct": ("direct path", "var(--gold)"),
    "exact": ("exact first order", "var(--atom)"),
}
"""As the records call it -> as the page does, and its colour."""

LOWEST = -1.0
"""Where the axis of R² ends."""


@dataclass(frozen=True)
class Fit:
    """One predictor over one part of the grid."""

    predictor: str
    epsilon: float
    horizon: int
    atoms: int
    r2: float | None
    r2_least: float | None
    r2_pooled: float | None
    r2_fitted: float | None
    sign: float | None
    protocol: str = "after_token"


@dataclass(frozen=True)
class RankFit:
    """One predictor over all tokens of one native rank."""

    predictor: str
    rank: int
    r2_pooled: float | None
    sign: float | None
    protocol: str = "after_token"


@dataclass(frozen=True)
class CellFit:
    """One predictor with one factor fitted a cell over all sizes, as published."""

    predictor: str
    r2_pooled: float | None
    protocol: str = "after_token"


@dataclass(frozen=True)
class Summary:
    """How well each predictor does."""

    fits: tuple[Fit, ...]
    by_rank: tuple[RankFit, ...]
    noise: float | None
    by_cell: tuple[CellFit, ...] = ()


def build(of: Measured) -> Panel:
    """Measured against predicted for each predictor, and R² by the size of the write, for each timing and position."""
    records = of.numeric(["measured", "epsilon", "horizon", "rank", "feature", *PREDICTORS])
    summary = of.read(Summary)
    named = {one.predictor for part in (summary.fits, summary.by_rank, summary.by_cell) for one in part}
    if unknown := named - PREDICTORS.keys():
        raise DataError(f"{of.file} names predictors this page does not know: {', '.join(sorted(unknown))}")
    cells = list(dict.fromkeys((fit.protocol, fit.horizon) for fit in summary.fits))
    small = records[(records.epsilon == records.epsilon.min()) & (records.horizon == records.horizon.min())]
    if cells and "protocol" in small:
        small = small[small.protocol == cells[0][0]]
    plots = [_scatter(small, name) for name in PREDICTORS] if len(small) else []
    plots += [_by_epsilon(summary, *cell) for cell in cells]
    note = (
        "R\u00b2 is the median over atoms with an effect above the rounding of the logits (root mean square "
        f"{words.quantity(summary.noise)}); \u2018fitted\u2019 multiplies each atom\u2019s predictions by the one "
        f"factor that suits them best. Signs count effects above the rounding only.{_ranks(summary)}{_cells(summary)}"
    )
    return Panel(_finding(summary), tuple(plots), _table(summary), note)


def _where(protocol: str, horizon: int) -> str:
    """Which logits were read: the first scored position is 1."""
    return f"{words.timing(protocol)}, scored position {horizon}"


def _finding(summary: Summary) -> str:
    if not summary.fits:
        return "No atom had an effect above the rounding of the logits."
    first = summary.fits[0].protocol
    least = min((fit.epsilon, fit.horizon) for fit in summary.fits if fit.protocol == first)
    fits = [f for f in summary.fits if (f.epsilon, f.horizon) == least and f.protocol == first]
    said = [
        f"{PREDICTORS[fit.predictor][0]} R\u00b2 {words.r_squared(fit.r2)} with nothing fitted, "
        f"{words.r_squared(fit.r2_fitted)} with one factor an atom, the right sign at {words.percent(fit.sign)}"
        for fit in fits
    ]
    where = f"A write {words.plain(least[0])} as large as a native one, {_where(first, least[1])}"
    return f"{where}, over {words.plural(max(fit.atoms for fit in fits), 'atom')}: {'; '.join(said)}."


def _scatter(cell: pd.DataFrame, name: str) -> Plot:
    """Predicted (x) against measured (y), linear near zero and logarithmic beyond: effects span decades."""
    title, colour = PREDICTORS[name]
    kept = cell.iloc[thinned(len(cell))]
    unit = float(np.nanmedian(np.abs(cell.measured))) or float(np.nanmax(np.abs(cell.measured), initial=0.0)) or 1.0
    top = float(np.nanmax(np.abs(cell[["measured", *PREDICTORS]].to_numpy()), initial=unit)) * 1.1
    figure = canvas(340)
    figure.add_trace(
        go.Scatter(
            x=rounded(_bent(kept[name].to_numpy(), unit)),
            y=rounded(_bent(kept.measured.to_numpy(), unit)),
            customdata=[
                [float(f"{p:.3g}"), float(f"{m:.3g}"), int(f)]
                for p, m, f in zip(kept[name], kept.measured, kept.feature, strict=True)
            ],
            mode="markers",
            showlegend=False,
            marker={"color": colour, "size": 4, "opacity": 0.5},
            hovertemplate=(
                "feature %{customdata[2]}<br>predicted %{customdata[0]}<br>measured %{customdata[1]}<extra></extra>"
            ),
        )
    )
    edge = float(_bent(np.array([top]), unit)[0])
    diagonal(figure, -edge, edge)
    values = [v for v in _decades(unit, top) if v == 0 or abs(float(_bent(np.array([v]), unit)[0])) > edge / 5]
    ticks = {
        "tickvals": rounded(_bent(np.array(values), unit)),
        "ticktext": [words.tick(value) for value in values],
        "range": [-edge, edge],
        "zeroline": True,
        "tickangle": 0,
    }
    figure.update_xaxes(title="predicted change of the logit", **ticks)
    figure.update_yaxes(title="measured change", **ticks)
    return Plot(
        f"predicted-{name}",
        title.capitalize(),
        figure,
        drawn_of(len(kept), len(cell), "changes") + " Dotted: perfect. Axes: linear near zero, logarithmic beyond.",
        width="third",
    )


def _bent(values: Floats, unit: float) -> Floats:
    """Linear below `unit`, logarithmic above."""
    return np.arcsinh(np.asarray(values, dtype=float) / unit)


def _decades(unit: float, top: float) -> list[float]:
    """Zero and, to both sides, every other power of ten from about the unit up."""
    powers = list(range(int(np.floor(np.log10(unit))), int(np.floor(np.log10(top))) + 1))[::-1][::2]
    positive = sorted(10.0**p for p in powers if 10.0**p > unit / 3)
    return [*(-value for value in positive[::-1]), 0.0, *positive]


def _by_epsilon(summary: Summary, protocol: str, horizon: int) -> Plot:
    """R² against the size of the write: solid with nothing fitted, dashed with one factor an atom."""
    figure = canvas(340)
    lowest = 0.0
    for name, (title, colour) in PREDICTORS.items():
        mine = [f for f in summary.fits if (f.predictor, f.protocol, f.horizon) == (name, protocol, horizon)]
        fits = sorted(mine, key=lambda f: f.epsilon)
        for fitted in (False, True):
            values = [f.r2_fitted if fitted else f.r2 for f in fits]
            how = "one factor an atom" if fitted else "nothing fitted"
            drawn = [None if value is None else max(value, LOWEST) for value in values]
            lowest = min([lowest, *(value for value in drawn if value is not None)])
            figure.add_trace(
                go.Scatter(
                    x=[f.epsilon for f in fits],
                    y=rounded(drawn),
                    text=[words.r_squared(value) for value in values],
                    name=title,
                    showlegend=not fitted,
                    mode="lines+markers",
                    line={"color": colour, "width": 2.25, "dash": "dot" if fitted else "solid"},
                    marker={
                        "color": "var(--surface)" if fitted else colour,
                        "size": 7,
                        "line": {"color": colour, "width": 2},
                    },
                    hovertemplate=f"{title}, {how}: %{{text}}<extra></extra>",
                )
            )
    epsilons = sorted({f.epsilon for f in summary.fits})
    figure.update_xaxes(
        type="log",
        tickvals=epsilons,
        ticktext=[words.plain(e) for e in epsilons],
        title="size of the write, in median native writes",
    )
    figure.update_yaxes(title="R\u00b2", range=[min(lowest, 0.0) - 0.04, 1.04], zeroline=True)
    figure.update_layout(hovermode="x")
    caption = "Solid: nothing fitted. Dotted, hollow: one factor an atom. Median over atoms."
    if lowest <= LOWEST:
        caption += f" Values below {words.plain(LOWEST)} are drawn there."
    title = f"R\u00b2 {_where(protocol, horizon)}"
    return Plot(f"epsilon-{protocol}-{horizon}", title, figure, caption)


def _table(summary: Summary) -> Table:
    """The smallest write, where a first-order formula should hold."""
    smallest = min((fit.epsilon for fit in summary.fits), default=0.0)
    rows = []
    for fit in (fit for fit in summary.fits if fit.epsilon == smallest):
        about = f"{PREDICTORS[fit.predictor][0]}, {_where(fit.protocol, fit.horizon)}"
        numbers = (fit.r2, fit.r2_least, fit.r2_pooled, fit.r2_fitted)
        rows.append((about, words.count(fit.atoms), *map(words.r_squared, numbers), words.percent(fit.sign)))
    head = (f"size {words.plain(smallest)}", "atoms", "R\u00b2, median", "least", "pooled", "fitted, median", "sign")
    return Table(head, rows)


def _ranks(summary: Summary) -> str:
    """How the predictors do for tokens that the model finds likely and unlikely."""
    said = []
    for name, (title, _) in PREDICTORS.items():
        first = next((one.protocol for one in summary.by_rank), None)
        mine = [one for one in summary.by_rank if (one.predictor, one.protocol) == (name, first)]
        found = [(one.rank, one.r2_pooled) for one in mine]
        if found:
            said.append(f"{title} " + ", ".join(f"{words.r_squared(r2)} (rank {rank})" for rank, r2 in found))
    return f" By the token\u2019s native rank, pooled R\u00b2 at the smallest size: {'; '.join(said)}." if said else ""


def _cells(summary: Summary) -> str:
    """The published fit, which says little about a predictor."""
    said = [
        f"{PREDICTORS[one.predictor][0]} {words.r_squared(one.r2_pooled)} ({words.timing(one.protocol)})"
        for one in summary.by_cell
    ]
    if not said:
        return ""
    return (
        " With one factor fitted for every passage, atom, position and token over all sizes, as published, R\u00b2 "
        f"only says whether a change is proportional to the size: {', '.join(said)}."
    )
