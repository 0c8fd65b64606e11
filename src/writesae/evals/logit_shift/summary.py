"""How well three formulas say what a write does. R^2 is given with nothing fitted, and with one factor fitted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from writesae.evals.common.cells import Cells, cells
from writesae.evals.common.conditions import common
from writesae.evals.common.result import Result
from writesae.evals.common.stats import Interval, clustered, r_squared, scaled_r_squared
from writesae.evals.logit_shift import LogitShiftConfig
from writesae.show import words
from writesae.show.figures import Floats, canvas, curve, diagonal, drawn_of, marks, rounded, thinned
from writesae.show.parts import Panel, Plot, Table
from writesae.types import NativeWrite, Timing

PREDICTORS = {
    "closed": ("closed form", "delete"),
    "direct": ("direct path", "gold"),
    "exact": ("exact first order", "atom"),
}
"""As the records call it -> as the page does, and its colour."""
LOWEST = -1.0
"""Where the axis of R\u00b2 ends."""
MEASURABLE = 30.0
"""An atom counts at an epsilon where its effect is this many times the rounding of the logits (root mean square)."""
PART = ["timing", "native_write"]
CELL = ["feature", *PART, "epsilon", "horizon"]
"""What makes an item."""
COLUMNS = common("passage", "timing") | {
    "feature": "the atom that is added",
    "position": "token within it at which the atom is added",
    "token": "the token whose logit is read",
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
class Cell:
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

    @property
    def where(self) -> str:
        """Which logits were read: the first scored position is 1."""
        return f"{words.timing(self.timing)}, scored position {self.horizon}"


@dataclass(frozen=True)
class Pooled:
    """One predictor over all records of a timing and form of the write together."""

    predictor: str
    timing: Timing
    native_write: NativeWrite
    r2: float
    rank: int | None = None
    """The native rank of the tokens; None for all."""
    sign: float = float("nan")


@dataclass(frozen=True)
class Summary(Cells[Cell]):
    """How well each predictor does."""

    by_rank: tuple[Pooled, ...]
    """At the smallest epsilon, nothing fitted."""
    by_cell: tuple[Pooled, ...]
    """With one factor fitted a cell (passage, atom, position, token) over all epsilons, as published. Whatever the
    predictor, this measures only whether the change is proportional to epsilon; nan with a single one."""
    noise: float
    """Root mean square difference of native logits between two ways to compute them: the rounding."""
    precision: str
    """Of the host that was measured: `float32` (as it was loaded) or `float64`."""


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
    floor, smallest = _floor(records), records.epsilon.min()
    records = records.assign(loud=measurable(records).to_numpy())
    fits, by_rank, by_cell = list[Cell](), list[Pooled](), list[Pooled]()
    for how, part in cells(records, PART):
        own, fired = part[part.loud], part.feature.nunique()
        for predictor in PREDICTORS:
            for where, cell in cells(own, ("epsilon", "horizon"), sort=True):
                fits.append(Cell(predictor, **how, **where, **_fit(cell, predictor, fired, floor, config.seed)))
            for where, cell in cells(own[own.epsilon == smallest], ("rank",), sort=True):
                right = _right(cell, predictor, floor)
                sign, r2 = float(right.mean()) if len(right) else np.nan, r_squared(cell.measured, cell[predictor])
                by_rank.append(Pooled(predictor, **how, r2=r2, **where, sign=sign))
            by_cell.append(Pooled(predictor, **how, r2=_cell_fit(own, predictor)))
    return Summary(tuple(fits), tuple(by_rank), tuple(by_cell), floor, str(records.precision.iloc[0]))


def _right(table: pd.DataFrame, predictor: str, floor: float) -> pd.Series[bool]:
    """For every effect beyond the rounding, by passage, whether its sign is as predicted."""
    loud = table[table.measured.abs() > MEASURABLE * floor]
    right: pd.Series[bool] = (np.sign(loud.measured) == np.sign(loud[predictor])).set_axis(loud.passage)
    return right


def fitted(records: pd.DataFrame, predictor: str) -> pd.Series[float]:
    """The predictions after each cell's are multiplied by the one number that fits it best over all epsilons."""
    keys = [records[name] for name in ("passage", "feature", "horizon", "rank")]
    products, squares = (
        (records[predictor] * records[name]).groupby(keys).transform("sum") for name in ("measured", predictor)
    )
    scaled: pd.Series[float] = records[predictor] * (products / squares).fillna(0.0)
    return scaled


def _cell_fit(records: pd.DataFrame, predictor: str) -> float:
    """Their R^2; NaN with a single epsilon."""
    several = records.epsilon.nunique() > 1
    return r_squared(records.measured, fitted(records, predictor)) if several else float("nan")


def _fit(cell: pd.DataFrame, predictor: str, fired: int, floor: float, seed: int) -> dict[str, Any]:
    """The statistics of a cell."""
    atoms = [atom for _, atom in cell.groupby("feature")]
    plain = [r_squared(atom.measured, atom[predictor]) for atom in atoms]
    fitted = [scaled_r_squared(atom.measured, atom[predictor]) for atom in atoms]
    right = _right(cell, predictor, floor)
    return {
        "atoms": len(atoms), "above": len(atoms) / fired, "r2": float(np.median(plain)),
        "r2_least": float(np.min(plain)), "r2_pooled": r_squared(cell.measured, cell[predictor]),
        "r2_fitted": float(np.median(fitted)), "sign": float(right.mean()) if len(right) else float("nan"),
        "sign_interval": clustered(right, right.index, seed),
    }  # fmt: skip


def finding(result: Result[LogitShiftConfig, Summary]) -> str:
    """How well each formula does for the smallest write."""
    summary = result.summary
    rounding = f"the rounding of the logits ({words.quantity(summary.noise)} root mean square)"
    if not summary.cells:
        return f"Too small to decide: no atom had an effect above {rounding}."
    first = min(summary.alike(*PART)[0], key=lambda cell: (cell.epsilon, cell.horizon))
    own = summary.where(**{name: getattr(first, name) for name in CELL[1:]})
    where = f"A write {words.plain(first.epsilon)} as large as a {first.native_write} one, {first.where}"
    number = f"n = {words.plural(first.atoms, 'atom')}, {words.plural(result.config.places, 'place')}"
    if first.above < 0.5:
        return f"{where}: too small to decide, with {words.percent(first.above)} of atoms above {rounding}; {number}."
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
    small = records[(records.epsilon == records.epsilon.min()) & (records.horizon == records.horizon.min())]
    for first in summary.cells[:1]:
        small = small[(small.timing == first.timing) & (small.native_write == first.native_write)]
    plots = [_scatter(small, name) for name in PREDICTORS]
    plots += [_by_epsilon(own) for own in summary.alike(*PART, "horizon")]
    note = (
        "R\u00b2 is the median over atoms with an effect above the rounding of the logits (root mean square "
        f"{words.quantity(summary.noise)}, host in {summary.precision}); \u2018fitted\u2019 multiplies each "
        "atom\u2019s predictions by the one factor that suits them best. Signs count effects above the rounding only."
        f"{_ranks(summary.by_rank)}{_cells(summary.by_cell)}"
    )
    return Panel(tuple(plots), _table(summary.cells), note)


def _scatter(cell: pd.DataFrame, name: str) -> Plot:
    """Predicted (x) against measured (y), linear near zero and logarithmic beyond: effects span decades."""
    title, colour = PREDICTORS[name]
    kept = cell.iloc[thinned(len(cell))]
    unit = float(np.nanmedian(np.abs(cell.measured))) or float(np.nanmax(np.abs(cell.measured), initial=0.0)) or 1.0
    top = float(np.nanmax(np.abs(cell[["measured", *PREDICTORS]].to_numpy()), initial=unit)) * 1.1
    figure = canvas(340)
    says = "feature %{customdata[2]}<br>predicted %{customdata[0]}<br>measured %{customdata[1]}"
    data = [
        [float(f"{p:.3g}"), float(f"{m:.3g}"), int(f)]
        for p, m, f in zip(kept[name], kept.measured, kept.feature, strict=True)
    ]
    x, y = (_bent(kept[column].to_numpy(), unit) for column in (name, "measured"))
    marks(figure, x, y, colour, 4, 0.5, says, customdata=data, showlegend=False)
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


def _by_epsilon(own: list[Cell]) -> Plot:
    """R\u00b2 against the size of the write: solid with nothing fitted, dashed with one factor an atom."""
    figure, lowest = canvas(340), 0.0
    for name, (title, colour) in PREDICTORS.items():
        fits = sorted((f for f in own if f.predictor == name), key=lambda f: f.epsilon)
        for column, how, dash, fill in (
            ("r2", "nothing fitted", "solid", colour), ("r2_fitted", "one factor an atom", "dot", "surface"),
        ):  # fmt: skip
            values = [getattr(f, column) for f in fits]
            drawn = np.maximum(np.array(values, float), LOWEST)
            lowest = min([lowest, *drawn[np.isfinite(drawn)].tolist()])
            ring = {"color": f"var(--{colour})", "width": 2}
            curve(
                figure, [f.epsilon for f in fits], drawn, colour, 2.25, f"{title}, {how}: %{{text}}", dash,
                text=[words.r_squared(value) for value in values], name=title, showlegend=dash == "solid",
                mode="lines+markers", marker={"color": f"var(--{fill})", "size": 7, "line": ring},
            )  # fmt: skip
    epsilons = sorted({f.epsilon for f in own})
    ticks = {"tickvals": epsilons, "ticktext": [words.plain(e) for e in epsilons]}
    figure.update_xaxes(type="log", title="size of the write, in median native writes", **ticks)
    figure.update_yaxes(title="R\u00b2", range=[lowest - 0.04, 1.04], zeroline=True)
    figure.update_layout(hovermode="x")
    caption = "Solid: nothing fitted. Dotted, hollow: one factor an atom. Median over atoms."
    if lowest <= LOWEST:
        caption += f" Values below {words.plain(LOWEST)} are drawn there."
    one = own[0]
    name, title = (
        f"epsilon-{one.timing}-{one.native_write}-{one.horizon}",
        f"R\u00b2 {one.where}, {one.native_write} write",
    )
    return Plot(name, title, figure, caption)


def _table(fits: Sequence[Cell]) -> Table:
    """The smallest write, where a first-order formula should hold."""
    smallest = min((fit.epsilon for fit in fits), default=0.0)
    rows = []
    for fit in (fit for fit in fits if fit.epsilon == smallest):
        about = f"{PREDICTORS[fit.predictor][0]}, {fit.where}, {fit.native_write} write"
        numbers = (fit.r2, fit.r2_least, fit.r2_pooled, fit.r2_fitted)
        sign = f"{words.percent(fit.sign)} ({words.interval(fit.sign_interval)})"
        rows.append((about, words.count(fit.atoms), *map(words.r_squared, numbers), sign))
    size = f"size {words.plain(smallest)}"
    return Table((size, "atoms", "R\u00b2, median", "least", "pooled", "fitted, median", "sign (95 %)"), rows)


def _ranks(by_rank: tuple[Pooled, ...]) -> str:
    """How the predictors do for tokens that the model finds likely and unlikely."""
    said = dict[str, list[str]]()
    for one in by_rank:
        if (one.timing, one.native_write) == (by_rank[0].timing, by_rank[0].native_write):
            said.setdefault(PREDICTORS[one.predictor][0], []).append(f"{words.r_squared(one.r2)} (rank {one.rank})")
    each = "; ".join(f"{name} {', '.join(found)}" for name, found in said.items())
    return f" By the token\u2019s native rank, pooled R\u00b2 at the smallest size: {each}." if said else ""


def _cells(by_cell: tuple[Pooled, ...]) -> str:
    """The published fit, which says little about a predictor."""
    said = [
        f"{PREDICTORS[one.predictor][0]} {words.r_squared(one.r2)} ({words.timing(one.timing)}, "
        f"{one.native_write} write)"
        for one in by_cell
    ]
    return (
        " With one factor fitted for every passage, atom, position and token over all sizes, as published, R\u00b2 "
        f"only says whether a change is proportional to the size: {', '.join(said)}."
    )
