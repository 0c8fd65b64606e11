"""How it is said and drawn."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from writesae.evals.common.conditions import CONDITIONS
from writesae.evals.common.floor import too_small
from writesae.evals.common.result import Result
from writesae.evals.passage_loss.config import PassageLossConfig
from writesae.evals.passage_loss.summary import PART, Cell, Summary, added
from writesae.show import words
from writesae.show.figures import Dot, canvas, dots, drawn_of, label, lines_of, rounded, thinned, upright
from writesae.show.parts import Panel, Plot, Table

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
