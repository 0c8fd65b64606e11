"""What the records say: in numbers, in words, in figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from writesae.evals.common.result import Result
from writesae.evals.common.stats import Interval, clustered, r_squared, scaled_r_squared
from writesae.evals.logit_shift import LogitShiftConfig
from writesae.show import words
from writesae.show.figures import Floats, canvas, diagonal, drawn_of, rounded, thinned
from writesae.show.parts import Panel, Plot, Table
from writesae.types import NativeWrite, Timing

PREDICTORS = ("closed", "direct", "exact")
MEASURABLE = 30.0
"""An atom counts at an epsilon where its effect is this many times the rounding of the logits (root mean square)."""
PART = ["timing", "native_write"]
CELL = ["feature", *PART, "epsilon", "horizon"]
"""What makes an item."""
COLUMNS = {
    "feature": "the atom that is added",
    "passage": "number of the passage",
    "position": "token within it at which the atom is added",
    "token": "the token whose logit is read",
    "timing": "whether the edited token reads the edited state itself (at_token) or not (after_token)",
    "native_write": "the form of the native write whose median norm is the unit of epsilon",
    "epsilon": "size of the write, in median native writes",
    "horizon": "scored position at which the logit is read, counted from 1",
    "rank": "rank of the token in the native distribution there",
    "measured": "change of its logit",
    "closed": "the same by the closed form",
    "direct": "the same by the direct path",
    "exact": "the same by the exact first order",
    "noise": "difference of the native logit between two ways to compute it",
    "precision": "of the host that was measured: float32 (as it was loaded) or float64",
}


@dataclass(frozen=True)
class Fit:
    """One predictor over one part of the grid."""

    predictor: str
    timing: Timing
    native_write: NativeWrite
    epsilon: float
    horizon: int
    atoms: int
    """With a measurable effect."""
    above: float
    """These as a share of the atoms that fire."""
    r2: float
    """Nothing fitted, median over atoms."""
    r2_least: float
    """Smallest over atoms."""
    r2_pooled: float
    """Nothing fitted, all atoms together."""
    r2_fitted: float
    """One factor fitted an atom, median over atoms."""
    sign: float
    """Share of effects beyond the rounding whose sign is as predicted."""
    sign_interval: Interval
    """Bootstrap over passages."""


@dataclass(frozen=True)
class RankFit:
    """One predictor over all tokens of one native rank."""

    predictor: str
    timing: Timing
    native_write: NativeWrite
    rank: int
    r2_pooled: float
    sign: float


@dataclass(frozen=True)
class CellFit:
    """One predictor with one factor fitted a cell (passage, atom, position, token) over all epsilons, as published.

    Whatever the predictor, this measures only whether the change is proportional to epsilon.
    """

    predictor: str
    timing: Timing
    native_write: NativeWrite
    r2_pooled: float
    """nan with a single epsilon, where every cell fits itself."""


@dataclass(frozen=True)
class Summary:
    """How well each predictor does."""

    fits: tuple[Fit, ...]
    by_rank: tuple[RankFit, ...]
    """At the smallest epsilon."""
    by_cell: tuple[CellFit, ...]
    noise: float
    """Root mean square difference of native logits between two ways to compute them: the rounding."""
    precision: str
    """Of the host that was measured: `float32` (as it was loaded) or `float64`."""

    def fit(self, predictor: str, epsilon: float, horizon: int, timing: Timing = "after_token") -> Fit:
        """One cell of the grid, of the first form of the native write."""
        wanted = (predictor, timing, self.fits[0].native_write, epsilon, horizon)
        return next(f for f in self.fits if (f.predictor, f.timing, f.native_write, f.epsilon, f.horizon) == wanted)


def hidden(records: pd.DataFrame) -> bool:
    """Whether rounding hides an effect at the smallest epsilon."""
    small = (records.epsilon == records.epsilon.min()).to_numpy()
    return bool((~measurable(records).to_numpy()[small]).any())


def measurable(records: pd.DataFrame) -> pd.Series[bool]:
    """For each row whether its (atom, timing, epsilon, horizon) has an effect above the rounding."""
    keys = [records[name] for name in CELL]
    effect = np.sqrt(records.measured.pow(2).groupby(keys).transform("mean"))
    flags: pd.Series[bool] = (effect > MEASURABLE * _floor(records)).set_axis(pd.MultiIndex.from_arrays(keys))
    return flags


def _floor(records: pd.DataFrame) -> float:
    return float(np.sqrt(records.noise.pow(2).mean()))


def summarise(tables: Mapping[str, pd.DataFrame], config: LogitShiftConfig) -> Summary:
    """The summary of the records."""
    records = tables["records"]
    floor = _floor(records)
    loud = records[measurable(records).to_numpy()]
    fits, ranks, cells = [], [], []
    for key, part in records.groupby(PART, sort=False):
        timing, form = cast(tuple[Timing, NativeWrite], key)
        own = loud[(loud.timing == timing) & (loud.native_write == form)]
        for predictor in PREDICTORS:
            where = (predictor, timing, form)
            for _, cell in own.groupby(["epsilon", "horizon"]):
                fits.append(_fit(where, cell, part.feature.nunique(), floor, config.seed))
            for rank, cell in own[own.epsilon == records.epsilon.min()].groupby("rank"):
                right = _right(cell, predictor, floor)
                pooled = r_squared(cell.measured, cell[predictor])
                ranks.append(RankFit(*where, int(str(rank)), pooled, float(right.mean()) if len(right) else np.nan))
            cells.append(CellFit(*where, _cell_fit(own, predictor)))
    return Summary(tuple(fits), tuple(ranks), tuple(cells), floor, str(records.precision.iloc[0]))


def _right(table: pd.DataFrame, predictor: str, floor: float) -> pd.Series[bool]:
    """For every effect beyond the rounding, by passage, whether its sign is as predicted."""
    loud = table[table.measured.abs() > MEASURABLE * floor]
    right: pd.Series[bool] = (np.sign(loud.measured) == np.sign(loud[predictor])).set_axis(loud.passage)
    return right


def _cell_fit(records: pd.DataFrame, predictor: str) -> float:
    """R^2 over all records after each cell's predictions are multiplied by the one number that fits it best."""
    if records.epsilon.nunique() < 2:
        return float("nan")
    keys = [records[name] for name in ("passage", "feature", "horizon", "rank")]
    products, squares = (
        (records[predictor] * records[name]).groupby(keys).transform("sum") for name in ("measured", predictor)
    )
    return r_squared(records.measured, records[predictor] * (products / squares).fillna(0.0))


def _fit(where: tuple[str, Timing, NativeWrite], cell: pd.DataFrame, asked: int, floor: float, seed: int) -> Fit:
    by_atom, predictor = [atom for _, atom in cell.groupby("feature")], where[0]
    plain = [r_squared(atom.measured, atom[predictor]) for atom in by_atom]
    fitted = [scaled_r_squared(atom.measured, atom[predictor]) for atom in by_atom]
    right = _right(cell, predictor, floor)
    return Fit(
        *where,
        float(cell.epsilon.iloc[0]),
        int(cell.horizon.iloc[0]),
        len(by_atom),
        len(by_atom) / asked,
        r2=float(np.median(plain)),
        r2_least=float(np.min(plain)),
        r2_pooled=r_squared(cell.measured, cell[predictor]),
        r2_fitted=float(np.median(fitted)),
        sign=float(right.mean()) if len(right) else float("nan"),
        sign_interval=clustered(right.to_numpy(), right.index.to_numpy(), seed),
    )


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
