"""What the records say: in numbers, in words, in figures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from writesae.evals.common.conditions import CONDITIONS, cells
from writesae.evals.common.floor import above, too_small
from writesae.evals.common.result import Result
from writesae.evals.common.stats import Interval, Test, clustered, wilcoxon
from writesae.evals.passage_loss import PassageLossConfig
from writesae.show import words
from writesae.show.figures import Dot, canvas, dots, drawn_of, label, lines_of, rounded, thinned, upright
from writesae.show.parts import Panel, Plot, Table
from writesae.types import Amplitude, NativeWrite, Timing

PART = ("timing", "native_write", "amplitude")
COLUMNS = {
    "passage": "number of the passage",
    "timing": "whether the edited token reads the edited state itself (at_token) or not (after_token)",
    "native_write": "which matrix is replaced, and classes the atoms",
    "amplitude": "how large the atom and the random matrix are",
    "firings": "writes that are replaced in it",
    "tokens": "tokens scored",
    "nll_*": "summed negative log-likelihood, nats: native, again (native with other rounding), delete, atom, random",
}
MORE = {
    "firings": {
        "passage": "number of the passage", "position": "token whose write is replaced", "feature": "its top feature",
        "coefficient": "of that feature", "native_write": "the matrix by which it is of the class",
    }
}  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """Over all tokens of the passages that have firings, under one timing, form of the write and amplitude."""

    timing: Timing
    native_write: NativeWrite
    amplitude: Amplitude
    passages: int
    firings: int
    above: float
    """Share of passages whose loss deletion changes by more than rounding does."""
    bits: dict[str, float]
    """Condition -> bits a token added to the native loss, mean over passages."""
    intervals: dict[str, Interval]
    """Bootstrap over passages."""
    tests: dict[str, Test]
    """Signed ranks over passages against the native loss."""
    recovered: float
    """Loss recovered by the atoms: 1 - (atom - native) / (delete - native) of the summed losses; nan where
    the interval of what deletion adds holds zero."""


@dataclass(frozen=True)
class Summary:
    """By timing, form of the write and amplitude."""

    cells: tuple[Cell, ...]


def summarise(tables: Mapping[str, pd.DataFrame], config: PassageLossConfig) -> Summary:
    """The summary of the records."""
    return Summary(tuple(_cell(key, own, config.seed) for key, own in cells(tables["records"], PART)))


def added(records: pd.DataFrame) -> pd.DataFrame:
    """Bits a token that each condition adds, by passage."""
    bits = {c: (records[f"nll_{c}"] - records.nll_native) / records.tokens / math.log(2) for c in CONDITIONS}
    return pd.DataFrame(bits)


def _cell(key: tuple[str, ...], records: pd.DataFrame, seed: int) -> Cell:
    bits, clusters, native = added(records), records.passage.to_numpy(), records.nll_native
    total = {name: float((records[f"nll_{name}"] - native).sum()) for name in CONDITIONS}
    intervals = {name: clustered(bits[name].to_numpy(), clusters, seed) for name in CONDITIONS}
    effect, floor = (np.square(records[f"nll_{name}"] - native) for name in ("delete", "again"))
    return Cell(
        cast(Timing, key[0]),
        cast(NativeWrite, key[1]),
        cast(Amplitude, key[2]),
        passages=len(records),
        firings=int(records.firings.sum()),
        above=float(above(effect, floor).mean()),
        bits={name: float(bits[name].mean()) for name in CONDITIONS},
        intervals=intervals,
        tests={name: wilcoxon(records[f"nll_{name}"], native) for name in CONDITIONS},
        recovered=1 - total["atom"] / total["delete"] if intervals["delete"].low > 0 else float("nan"),
    )


COLOUR = {"atom": "var(--atom)", "delete": "var(--delete)", "random": "var(--random)"}


def finding(result: Result[PassageLossConfig, Summary]) -> str:
    """What deleting or replacing all firings costs."""
    cell = result.summary.cells[0]
    number = (
        f"{words.count(cell.firings)} firings of the class in {words.plural(cell.passages, 'passage')} ({_where(cell)})"
    )
    if too_small(cell.above):
        return (
            f"Too small to decide what replacing {number} costs: deletion changes the loss by more than rounding in "
            f"{words.percent(cell.above)} of them."
        )
    said = [
        f"{words.condition(c)} {words.signed(bits, 4)} ({words.span(cell.intervals[c], 4)})"
        for c, bits in cell.bits.items()
    ]
    text = f"Bits a token that replacing all {number} adds, with 95 % intervals over passages: {'; '.join(said)}."
    if words.finite(cell.recovered):
        text += f" Of what deletion costs, the atoms recover {words.percent(cell.recovered)}."
    return text


def panel(result: Result[PassageLossConfig, Summary]) -> Panel:
    """Bits that each replacement adds, over all passages and in each."""
    cells, records = result.summary.cells, result.records
    rows = [
        (
            f"{words.condition(c)}, {_where(cell)}", words.signed(cell.bits[c], 4), words.span(cell.intervals[c], 4),
            words.quantity(cell.tests[c].p), words.count(cell.passages), words.percent(cell.above),
        )
        for cell in cells for c in CONDITIONS
    ]  # fmt: skip
    head = ("in the write\u2019s place", "added bits a token", "95 % interval", "p (signed ranks)", "passages", "above")
    note = "Above: the share of passages whose loss deletion changes by more than rounding does."
    first = [getattr(cells[0], name) for name in PART]
    own = records[(records[list(PART)] == first).all(axis=1)]
    return Panel((_means(cells), _passages(own, cells[0])), Table(head, rows), note)


def _where(cell: Cell) -> str:
    return f"{words.timing(cell.timing)}, {cell.native_write} write, {words.amplitude(cell.amplitude)}"


def _means(cells: tuple[Cell, ...]) -> Plot:
    figure = canvas()
    lines = [(c, cell) for cell in cells for c in CONDITIONS]
    lines_of(figure, [f"{c}, {words.timing(cell.timing)}, {cell.native_write}, {cell.amplitude}" for c, cell in lines])
    for i, (c, cell) in enumerate(lines):
        dot = Dot(f"{words.condition(c)}, {_where(cell)}", cell.bits[c], cell.intervals[c])
        dots(figure, c, [dot], COLOUR[c], float(i), lambda v: words.signed(v, 4))
    upright(figure, 0.0, "native", dash="solid")
    figure.update_layout(showlegend=False)
    figure.update_xaxes(title="added loss (bits a token)")
    return Plot("means", "Over all passages", figure, "Bars: 95 % bootstrap intervals over passages.")


def _passages(records: pd.DataFrame, cell: Cell) -> Plot:
    """Firings of the class in a passage (x) against the bits that replacing them adds (y)."""
    figure, bits = canvas(), added(records)
    rows = thinned(len(records))
    for c in CONDITIONS:
        figure.add_trace(
            go.Scatter(
                x=[int(n) for n in records.firings.to_numpy()[rows]],
                y=rounded(bits[c].to_numpy()[rows]),
                customdata=[int(n) for n in records.passage.to_numpy()[rows]],
                name=label(words.condition(c)),
                mode="markers",
                marker={"color": COLOUR[c], "size": 7, "opacity": 0.7},
                hovertemplate="passage %{customdata}, %{x} firings<br>%{y:+.4f} bits a token<extra></extra>",
            )
        )
    figure.add_hline(y=0, line={"color": "var(--ink-soft)", "width": 1.25})
    figure.update_xaxes(title="firings of the class in the passage", rangemode="tozero")
    figure.update_yaxes(title="added bits a token")
    caption = f"{drawn_of(len(rows), len(records), 'passages')} {words.sentence(_where(cell))}"
    return Plot("passages", "Passage by passage", figure, caption)
