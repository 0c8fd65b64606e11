"""How it is said and drawn."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from writesae.evals.common.result import Result
from writesae.evals.logit_shift.config import LogitShiftConfig
from writesae.evals.logit_shift.summary import CellFit, Fit, RankFit, Summary
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
"""Where the axis of R\u00b2 ends."""


def finding(result: Result[LogitShiftConfig, Summary]) -> str:
    """How well each formula does for the smallest write."""
    fits = result.summary.fits
    rounding = f"the rounding of the logits ({words.quantity(result.summary.noise)} root mean square)"
    if not fits:
        return f"Too small to decide: no atom had an effect above {rounding}."
    epsilon, horizon = min((fit.epsilon, fit.horizon) for fit in fits if _part(fit) == _part(fits[0]))
    own = [f for f in fits if (f.epsilon, f.horizon) == (epsilon, horizon) and _part(f) == _part(fits[0])]
    where = (
        f"A write {words.plain(epsilon)} as large as a {fits[0].native_write} one, {_where(fits[0].timing, horizon)}"
    )
    number = f"n = {words.plural(own[0].atoms, 'atom')}, {words.plural(result.config.places, 'place')}"
    if own[0].above < 0.5:
        return f"{where}: too small to decide, with {words.percent(own[0].above)} of atoms above {rounding}; {number}."
    said = [
        f"{PREDICTORS[fit.predictor][0]} R\u00b2 {words.r_squared(fit.r2)} with nothing fitted, "
        f"{words.r_squared(fit.r2_fitted)} with one factor an atom, the right sign at {words.percent(fit.sign)} "
        f"(95 % interval by passage {words.interval(fit.sign_interval)})"
        for fit in own
    ]
    return f"{where}; {number}: {'; '.join(said)}."


def panel(result: Result[LogitShiftConfig, Summary]) -> Panel:
    """Measured against predicted for each predictor, and R\u00b2 by the size of the write, for each timing, form of
    the native write and position."""
    records, summary = result.records, result.summary
    cells = list(dict.fromkeys((fit.timing, fit.native_write, fit.horizon) for fit in summary.fits))
    small = records[(records.epsilon == records.epsilon.min()) & (records.horizon == records.horizon.min())]
    if cells:
        small = small[(small.timing == cells[0][0]) & (small.native_write == cells[0][1])]
    plots = [_scatter(small, name) for name in PREDICTORS]
    plots += [_by_epsilon([f for f in summary.fits if (*_part(f), f.horizon) == cell]) for cell in cells]
    note = (
        "R\u00b2 is the median over atoms with an effect above the rounding of the logits (root mean square "
        f"{words.quantity(summary.noise)}, host in {summary.precision}); \u2018fitted\u2019 multiplies each "
        "atom\u2019s predictions by the one factor that suits them best. Signs count effects above the rounding only."
        f"{_ranks(summary.by_rank)}{_cells(summary.by_cell)}"
    )
    return Panel(tuple(plots), _table(summary.fits), note)


def _part(fit: Fit | RankFit | CellFit) -> tuple[str, str]:
    return fit.timing, fit.native_write


def _where(timing: str, horizon: int) -> str:
    """Which logits were read: the first scored position is 1."""
    return f"{words.timing(timing)}, scored position {horizon}"


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


def _by_epsilon(own: list[Fit]) -> Plot:
    """R\u00b2 against the size of the write: solid with nothing fitted, dashed with one factor an atom."""
    figure = canvas(340)
    lowest = 0.0
    for name, (title, colour) in PREDICTORS.items():
        fits = sorted((f for f in own if f.predictor == name), key=lambda f: f.epsilon)
        for fitted in (False, True):
            values = [f.r2_fitted if fitted else f.r2 for f in fits]
            how = "one factor an atom" if fitted else "nothing fitted"
            drawn = [max(value, LOWEST) if words.finite(value) else None for value in values]
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
    epsilons = sorted({f.epsilon for f in own})
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
    timing, form, horizon = own[0].timing, own[0].native_write, own[0].horizon
    title = f"R\u00b2 {_where(timing, horizon)}, {form} write"
    return Plot(f"epsilon-{timing}-{form}-{horizon}", title, figure, caption)


def _table(fits: tuple[Fit, ...]) -> Table:
    """The smallest write, where a first-order formula should hold."""
    smallest = min((fit.epsilon for fit in fits), default=0.0)
    rows = []
    for fit in (fit for fit in fits if fit.epsilon == smallest):
        about = f"{PREDICTORS[fit.predictor][0]}, {_where(fit.timing, fit.horizon)}, {fit.native_write} write"
        numbers = (fit.r2, fit.r2_least, fit.r2_pooled, fit.r2_fitted)
        sign = f"{words.percent(fit.sign)} ({words.interval(fit.sign_interval)})"
        rows.append((about, words.count(fit.atoms), *map(words.r_squared, numbers), sign))
    size = f"size {words.plain(smallest)}"
    return Table((size, "atoms", "R\u00b2, median", "least", "pooled", "fitted, median", "sign (95 %)"), rows)


def _ranks(by_rank: tuple[RankFit, ...]) -> str:
    """How the predictors do for tokens that the model finds likely and unlikely."""
    said = []
    for name, (title, _) in PREDICTORS.items():
        mine = [one for one in by_rank if one.predictor == name and _part(one) == _part(by_rank[0])]
        if mine:
            found = ", ".join(f"{words.r_squared(one.r2_pooled)} (rank {one.rank})" for one in mine)
            said.append(f"{title} {found}")
    return f" By the token\u2019s native rank, pooled R\u00b2 at the smallest size: {'; '.join(said)}." if said else ""


def _cells(by_cell: tuple[CellFit, ...]) -> str:
    """The published fit, which says little about a predictor."""
    said = [
        f"{PREDICTORS[one.predictor][0]} {words.r_squared(one.r2_pooled)} ({words.timing(one.timing)}, "
        f"{one.native_write} write)"
        for one in by_cell
    ]
    return (
        " With one factor fitted for every passage, atom, position and token over all sizes, as published, R\u00b2 "
        f"only says whether a change is proportional to the size: {', '.join(said)}."
    )
