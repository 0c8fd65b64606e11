"""Every write on which a class of atoms fires, deleted or replaced over whole passages."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go

from writesae.evals.old.measured import Measured
from writesae.evals.old.structure import Test
from writesae.show import words
from writesae.show.figures import Dot, Interval, canvas, dots, drawn_of, label, lines_of, rounded, thinned, upright
from writesae.show.parts import Panel, Plot, Table

COLOUR = {"atom": "var(--atom)", "delete": "var(--delete)", "random_norm": "var(--random)"}


@dataclass(frozen=True)
class Summary:
    """Over all tokens of the passages that have firings."""

    passages: int
    firings: int
    bits: dict[str, float | None]
    intervals: dict[str, Interval | None]
    tests: dict[str, Test]
    recovered: float | None = None
    """Share of the loss that deletion adds and the atoms do not."""


def build(of: Measured) -> Panel:
    """Bits that each replacement adds, over all passages and in each."""
    summary = of.read(Summary)
    records = of.numeric(["passage", "firings", "tokens", "nll_native", *(f"nll_{c}" for c in summary.bits)])
    added = pd.DataFrame(
        {c: (records[f"nll_{c}"] - records.nll_native) / records.tokens / math.log(2) for c in summary.bits}
    )
    said = [
        f"{words.condition(c)} {words.signed(bits, 4)} ({words.span(summary.intervals.get(c), 4)})"
        for c, bits in summary.bits.items()
    ]
    finding = (
        f"Bits a token that replacing all {words.count(summary.firings)} firings of the class adds, mean of "
        f"{words.plural(summary.passages, 'passage')} with a 95 % interval over passages: {'; '.join(said)}."
    )
    if summary.recovered is not None:
        finding += f" Of what deletion costs, the atoms recover {words.percent(summary.recovered)}."
    rows = []
    for c, bits in summary.bits.items():
        p = summary.tests[c].p if c in summary.tests else None
        rows.append(
            (words.condition(c), words.signed(bits, 4), words.span(summary.intervals.get(c), 4), words.quantity(p))
        )
    table = Table(("in the write\u2019s place", "added bits a token", "95 % interval", "p (signed ranks)"), rows)
    return Panel(finding, (_means(summary), _passages(records, added)), table)


def _means(summary: Summary) -> Plot:
    figure = canvas()
    lines_of(figure, [words.short_condition(c) for c in summary.bits])
    for i, (c, bits) in enumerate(summary.bits.items()):
        entries = [Dot(words.condition(c), bits, summary.intervals.get(c))]
        dots(figure, c, entries, COLOUR.get(c, "var(--violet)"), float(i), lambda v: words.signed(v, 4))
    upright(figure, 0.0, "native", dash="solid")
    figure.update_layout(showlegend=False, height=330)
    figure.update_xaxes(title="added loss (bits a token)")
    return Plot("means", "Over all passages", figure, "Bars: 95 % bootstrap intervals over passages.")


def _passages(records: pd.DataFrame, added: pd.DataFrame) -> Plot:
    """Firings of the class in a passage (x) against the bits that replacing them adds (y)."""
    figure = canvas()
    rows = thinned(len(records))
    for c in added.columns:
        figure.add_trace(
            go.Scatter(
                x=[int(n) for n in records.firings.to_numpy()[rows]],
                y=rounded(added[c].to_numpy()[rows]),
                customdata=[int(n) for n in records.passage.to_numpy()[rows]],
                name=label(words.short_condition(str(c)).replace("<br>", " ")),
                mode="markers",
                marker={"color": COLOUR.get(str(c), "var(--violet)"), "size": 7, "opacity": 0.7},
                hovertemplate="passage %{customdata}, %{x} firings<br>%{y:+.4f} bits a token<extra></extra>",
            )
        )
    figure.add_hline(y=0, line={"color": "var(--ink-soft)", "width": 1.25})
    figure.update_xaxes(title="firings of the class in the passage", rangemode="tozero")
    figure.update_yaxes(title="added bits a token")
    return Plot("passages", "Passage by passage", figure, drawn_of(len(rows), len(records), "passages"))
