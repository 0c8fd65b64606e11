"""How it is said and drawn."""

from __future__ import annotations

from writesae.evals.common.floor import too_small
from writesae.evals.common.result import Result
from writesae.evals.sign.config import SignConfig
from writesae.evals.sign.summary import PREDICTORS, Row, Summary
from writesae.show import words
from writesae.show.doses import Point, by_direction, by_dose
from writesae.show.parts import Panel, Plot, Table

NAMES = {"exact": "exact first order", "carried": "closed form with erasing", "closed": "closed form"}


SAID = (("exact", "random"), ("closed", "random"), ("closed", "closed"))
"""Of predictor and direction, what the sentence names."""


def finding(result: Result[SignConfig, Summary]) -> str:
    """The two formulas at the dose nearest to a native write, for each timing."""
    config = result.config
    dose, form = min(config.magnitudes, key=lambda m: abs(m - 1.0)), config.native_writes[0]
    cells = [pair for pair in SAID if pair[1] in config.directions] or [("exact", config.directions[0])]
    said = []
    for timing in config.timings:
        rows = [r for r in result.summary.rows if (r.timing, r.magnitude, r.native_write) == (timing, dose, form)]
        each = [_said(r) for cell in cells for r in rows if (r.predictor, r.direction) == cell]
        said.append(f"{words.timing(timing)}: {', '.join(each)}")
    return (
        f"Sign of the target\u2019s change said rightly, writes of {words.plain(dose)}\u00d7 the native write\u2019s "
        f"norm, {words.count(result.n)} contexts, 95 % intervals; {'; '.join(said)}."
    )


def _said(row: Row) -> str:
    of = f"{NAMES[row.predictor]} on {row.direction} writes"
    if too_small(row.above):
        return f"{of} too small to decide ({words.percent(row.above)} of the changes above rounding)"
    return f"{of} {words.percent(row.agreement.value)} ({words.interval(row.agreement.bounds)})"


def panel(result: Result[SignConfig, Summary]) -> Panel:
    """Agreement by dose for each predictor and timing."""
    rows, config = result.summary.rows, result.config
    plots = [
        _agreement(
            [r for r in rows if (r.timing, r.native_write, r.predictor) == (timing, form, predictor)],
            f"{predictor}-{timing}-{form}",
            f"{NAMES[predictor].capitalize()}, {words.timing(timing)}"
            + (f", {form} write" if len(config.native_writes) > 1 else ""),
        )
        for timing in config.timings
        for form in config.native_writes
        for predictor in PREDICTORS
    ]
    head = ["direction", "timing", "native write", "dose", "above rounding"]
    for name in PREDICTORS:
        head += [NAMES[name], "R\u00b2, r"]
    table = dict[tuple[str, ...], list[str]]()
    for r in rows:
        dose = f"{r.magnitude:g}\u00d7"
        line = table.setdefault((r.direction, words.timing(r.timing), r.native_write, dose, words.percent(r.above)), [])
        line.append(f"{words.percent(r.agreement.value)} ({words.interval(r.agreement.bounds)})")
        line.append(f"{words.r_squared(r.r2)}, {words.decimals(r.correlation)}")
    note = (
        "A dose is the Frobenius norm of the write in native writes of the same token. The closed form is the "
        "paper\u2019s product of decays, read and unembedding; \u2018with erasing\u2019 carries the write through the "
        "head\u2019s own recurrence instead; the exact first order is the gradient. A context that did not move counts "
        "as wrong. Above rounding: moved by more than any logit does between two native rows of one batch. R\u00b2: of "
        "the size of the change, with nothing fitted; r: its correlation."
    )
    return Panel(tuple(plots), Table(tuple(head), [(*key, *line) for key, line in table.items()]), note)


def _agreement(rows: list[Row], name: str, title: str) -> Plot:
    curves = by_direction((r.direction, Point(r.magnitude, r.agreement.value, r.agreement.bounds)) for r in rows)
    figure = by_dose(curves, "norm (native writes)", "sign agreement", words.percent, level=0.5, share=True)
    return Plot(name, title, figure, "Dashed: one half.", width="third")
