"""How often the sign was right, and how well the size was said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from writesae.evals.common.cells import Cells, cells
from writesae.evals.common.conditions import common
from writesae.evals.common.floor import stands_out, too_small
from writesae.evals.common.result import Result
from writesae.evals.common.stats import Share, r_squared, share
from writesae.evals.sign import SignConfig
from writesae.show import words
from writesae.show.doses import DIRECTIONS, Point, by_dose, curves_of
from writesae.show.parts import Panel, Plot, Table
from writesae.types import DirectionKind, NativeWrite, Timing

Floats = NDArray[np.float64]

PREDICTORS = {"exact": "exact first order", "carried": "closed form with erasing", "closed": "closed form"}

COLUMNS = common("timing") | {
    "passage": "context",
    "token": "target, a token id",
    "direction": "what is written: closed, exact or random",
    "native_write": "the native write that the magnitude counts in: delta or value",
    "magnitude": "Frobenius norm of the write, in native writes",
    "change": "measured change of the target's logit",
    "floor": "largest change of any logit between two native rows of the same batch: rounding",
    "exact": "change that the exact first order says",
    "carried": "change that the closed form says with what the recurrence erases between",
    "closed": "change that the closed form says",
}


BY = ("direction", "timing", "native_write", "magnitude")
SAID = (("exact", "random"), ("closed", "random"), ("closed", "closed"))
"""Of predictor and direction, what the sentence names."""


@dataclass(frozen=True)
class Cell:
    """One direction, predictor, timing, native write and magnitude."""

    direction: DirectionKind
    predictor: str
    timing: Timing
    native_write: NativeWrite
    magnitude: float
    agreement: Share
    """Contexts whose logit moved the predicted way; one that moved nothing counts against it."""
    r2: float
    """Of the size of the change, with nothing fitted."""
    correlation: float
    above: float
    """Share of contexts whose change is above the rounding."""
    among: Share
    """The agreement among those."""


Summary = Cells[Cell]


def summarise(tables: Mapping[str, pd.DataFrame], config: SignConfig) -> Summary:
    """The summary of the records."""
    found = []
    for how, part in cells(tables["records"], BY):
        change, passage = part.change.to_numpy(float), part.passage.to_numpy()
        above = stands_out(change, part.floor)
        for predictor in PREDICTORS:
            predicted = part[predictor].to_numpy(float)
            right = (np.sign(predicted) == np.sign(change)) & (change != 0)
            agreement, among = share(right, passage, config.seed), share(right[above], passage[above], config.seed)
            r2, correlation = r_squared(change, predicted), _correlation(predicted, change)
            cell = Cell(
                predictor=predictor, **how, agreement=agreement, r2=r2, correlation=correlation,
                above=float(above.mean()), among=among,
            )  # fmt: skip
            found.append(cell)
    return Cells(tuple(found))


def _correlation(x: Floats, y: Floats) -> float:
    return float(np.corrcoef(x, y)[0, 1]) if x.std() and y.std() else float("nan")


def finding(result: Result[SignConfig, Summary]) -> str:
    """The two formulas at the dose nearest to a native write, for each timing."""
    config, said = result.config, []
    dose, form = min(config.magnitudes, key=lambda m: abs(m - 1.0)), config.native_writes[0]
    pairs = [pair for pair in SAID if pair[1] in config.directions] or [("exact", config.directions[0])]
    for timing in config.timings:
        how = {"timing": timing, "magnitude": dose, "native_write": form}
        each = [_said(result.summary.cell(predictor=p, direction=d, **how)) for p, d in pairs]
        said.append(f"{words.timing(timing)}: {', '.join(each)}")
    return (
        f"Sign of the target\u2019s change said rightly, writes of {words.times(dose)} the native write\u2019s "
        f"norm, {words.count(result.n)} contexts, 95 % intervals; {'; '.join(said)}."
    )


def _said(cell: Cell) -> str:
    of = f"{PREDICTORS[cell.predictor]} on {cell.direction} writes"
    if too_small(cell.above):
        return f"{of} too small to decide ({words.percent(cell.above)} of the changes above rounding)"
    return f"{of} {words.percent(cell.agreement.value)} ({words.interval(cell.agreement.bounds)})"


def panel(result: Result[SignConfig, Summary]) -> Panel:
    """Agreement by dose for each predictor and timing."""
    summary, config, plots = result.summary, result.config, []
    for timing, form, predictor in product(config.timings, config.native_writes, PREDICTORS):
        rows = summary.where(timing=timing, native_write=form, predictor=predictor)
        title = f"{PREDICTORS[predictor].capitalize()}, {words.timing(timing)}"
        title += f", {form} write" if len(config.native_writes) > 1 else ""
        curves = curves_of(
            rows, "direction", DIRECTIONS, lambda r: Point(r.magnitude, r.agreement.value, r.agreement.bounds)
        )
        figure = by_dose(curves, "norm (native writes)", "sign agreement", words.percent, across=0.5, share=True)
        plots.append(Plot(f"{predictor}-{timing}-{form}", title, figure, "Dashed: one half.", width="third"))
    head, table = ["direction", "timing", "native write", "dose", "above rounding"], []
    for name in PREDICTORS.values():
        head += [name, "R\u00b2, r"]
    for rows in summary.alike(*BY):
        one, line = rows[0], list[str]()
        for r in rows:
            line.append(f"{words.percent(r.agreement.value)} ({words.interval(r.agreement.bounds)})")
            line.append(f"{words.r_squared(r.r2)}, {words.decimals(r.correlation)}")
        about = (one.direction, words.timing(one.timing), one.native_write, words.times(one.magnitude))
        table.append((*about, words.percent(one.above), *line))
    note = (
        "A dose is the Frobenius norm of the write in native writes of the same token. The closed form is the "
        "paper\u2019s product of decays, read and unembedding; \u2018with erasing\u2019 carries the write through the "
        "head\u2019s own recurrence instead; the exact first order is the gradient. A context that did not move counts "
        "as wrong. Above rounding: moved by more than any logit does between two native rows of one batch. R\u00b2: of "
        "the size of the change, with nothing fitted; r: its correlation."
    )
    return Panel(tuple(plots), Table(tuple(head), table), note)
