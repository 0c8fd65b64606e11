"""Does a formula say how a rank-1 write moves the logits? Three predictors against what was measured."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from writesae.errors import DataError
from writesae.report import words
from writesae.report.figures import canvas, diagonal, drawn_of, rounded, thinned
from writesae.report.measured import Floats, Measured
from writesae.report.parts import Panel, Plot, Table

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


@dataclass(frozen=True)
class RankFit:
    """One predictor over all tokens of one native rank."""

    predictor: str
    rank: int
    r2_pooled: float | None
    sign: float | None


@dataclass(frozen=True)
class Summary:
    """How well each predictor does."""

    fits: tuple[Fit, ...]
    by_rank: tuple[RankFit, ...]
    noise: float | None


def build(of: Measured) -> Panel:
    """Measured against predicted for each predictor, and R² by the size of the write."""
    records = of.numeric(["measured", "epsilon", "horizon", "rank", "feature", *PREDICTORS])
    summary = of.read(Summary)
    named = {fit.predictor for fit in summary.fits} | {fit.predictor for fit in summary.by_rank}
    if unknown := named - PREDICTORS.keys():
        raise DataError(f"{of.file} names predictors this page does not know: {', '.join(sorted(unknown))}")
    small = records[(records.epsilon == records.epsilon.min()) & (records.horizon == records.horizon.min())]
    plots = [_scatter(small, name) for name in PREDICTORS]
    plots += [_by_epsilon(summary, horizon) for horizon in sorted({fit.horizon for fit in summary.fits})]
    note = (
        "R\u00b2 is the median over atoms with an effect above the rounding of the logits"
        f" (root mean square {words.quantity(summary.noise)}); \u2018fitted\u2019 multiplies each atom\u2019s "
        "predictions by the one factor "
        "that suits them best. Signs count effects above the rounding only." + _ranks(summary)
    )
    return Panel(_finding(summary), tuple(plots), _table(summary), note)


def _finding(summary: Summary) -> str:
    if not summary.fits:
        return "No atom had an effect above the rounding of the logits."
    least = min((fit.epsilon, fit.horizon) for fit in summary.fits)
    said = []
    for name, (title, _) in PREDICTORS.items():
        fit = next((f for f in summary.fits if (f.predictor, f.epsilon, f.horizon) == (name, *least)), None)
        if fit is not None:
            said.append(
                f"{title} R\u00b2 {words.r_squared(fit.r2)} with nothing fitted, {words.r_squared(fit.r2_fitted)} "
                "with one "
                f"factor an atom, the right sign at {words.percent(fit.sign)}"
            )
    atoms = max(fit.atoms for fit in summary.fits if (fit.epsilon, fit.horizon) == least)
    where = f"A write {words.plain(least[0])} as large as a native one, read {words.plural(least[1], 'token')} later"
    return f"{where}, over {words.plural(atoms, 'atom')}: {'; '.join(said)}."


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
    values = _decades(unit, top)
    ticks = {
        "tickvals": rounded(_bent(np.array(values), unit)),
        "ticktext": [words.tick(value) for value in values],
        "range": [-edge, edge],
        "zeroline": True,
    }
    figure.update_xaxes(title="predicted change of the logit", **ticks)
    figure.update_yaxes(title="measured change", **ticks)
    return Plot(
        f"predicted-{name}",
        title.capitalize(),
        figure,
        drawn_of(len(kept), len(cell), "changes") + " Dotted: perfect.",
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


def _by_epsilon(summary: Summary, horizon: int) -> Plot:
    """R² against the size of the write: solid with nothing fitted, dashed with one factor an atom."""
    figure = canvas(340)
    lowest = 0.0
    for name, (title, colour) in PREDICTORS.items():
        fits = sorted((f for f in summary.fits if (f.predictor, f.horizon) == (name, horizon)), key=lambda f: f.epsilon)
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
    return Plot(f"epsilon-{horizon}", f"Read {words.plural(horizon, 'token')} later", figure, caption)


def _table(summary: Summary) -> Table:
    """The smallest write, where a first-order formula should hold."""
    smallest = min((fit.epsilon for fit in summary.fits), default=0.0)
    rows = []
    for fit in (fit for fit in summary.fits if fit.epsilon == smallest):
        about = f"{PREDICTORS[fit.predictor][0]}, {words.plural(fit.horizon, 'token')} later"
        numbers = (fit.r2, fit.r2_least, fit.r2_pooled, fit.r2_fitted)
        rows.append((about, words.count(fit.atoms), *map(words.r_squared, numbers), words.percent(fit.sign)))
    head = (f"size {words.plain(smallest)}", "atoms", "R\u00b2, median", "least", "pooled", "fitted, median", "sign")
    return Table(head, rows)


def _ranks(summary: Summary) -> str:
    """How the predictors do for tokens that the model finds likely and unlikely."""
    said = []
    for name, (title, _) in PREDICTORS.items():
        found = [(one.rank, one.r2_pooled) for one in summary.by_rank if one.predictor == name]
        if found:
            said.append(f"{title} " + ", ".join(f"{words.r_squared(r2)} (rank {rank})" for rank, r2 in found))
    return f" By the token\u2019s native rank, pooled R\u00b2 at the smallest size: {'; '.join(said)}." if said else ""
