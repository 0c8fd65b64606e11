"""Do dictionaries of several seeds find the same classes and the same atoms?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from writesae.evals.old.measured import Measured
from writesae.show import words
from writesae.show.figures import canvas, histogram, upright
from writesae.show.parts import Panel, Plot, Table

COLOUR = {"register": "var(--state)", "bundle": "var(--write)"}


@dataclass(frozen=True)
class Summary:
    """Over all dictionaries."""

    counts: dict[str, tuple[int, ...]]
    variation: dict[str, float | None]
    matched: float | None
    best: float | None
    assigned: float | None


def build(of: Measured) -> Panel:
    """How alike each atom's best counterpart is, and how many atoms of each class every dictionary has."""
    of.need(["class"])
    records = of.numeric(["dictionary", "other", "best", "assigned"])
    summary, match = of.read(Summary), of.setting(float, "match")
    finding = (
        f"{words.percent(summary.matched)} of alive atoms have a counterpart of absolute cosine above "
        f"{words.plain(match)} in another "
        f"dictionary; the median best cosine is {words.plain(summary.best, 3)} (n = {words.count(len(records))} "
        "atoms against "
        f"{words.plural(len(of.source.sae), 'dictionary', 'dictionaries')})."
    )
    plots = (_matches(records, "best", match), _matches(records, "assigned", match), _counts(summary))
    return Panel(
        finding,
        plots,
        _table(summary),
        f"One-to-one assignment: mean absolute cosine {words.plain(summary.assigned, 3)}.",
    )


def _matches(records: pd.DataFrame, column: str, match: float) -> Plot:
    figure = canvas()
    for name, group in records.groupby("class"):
        known = group[column].dropna().to_numpy(dtype=float)
        histogram(figure, known, np.linspace(0, 1, 51), str(name), COLOUR.get(str(name), "var(--random)"), "cosine")
    figure.update_layout(barmode="stack")
    upright(figure, match, "", dash="dash")
    figure.update_xaxes(title="absolute cosine", range=[-0.01, 1.01])
    figure.update_yaxes(title="atoms", rangemode="tozero")
    title = {"best": "Best counterparts", "assigned": "Partners, one to one"}[column]
    lost = int(records[column].isna().sum())
    caption = f"{words.count(len(records) - lost)} atoms and other dictionaries; dashed: where two count as the same."
    return Plot(
        column, title, figure, caption + (f" {words.count(lost)} have no partner." if lost else ""), width="third"
    )


def _counts(summary: Summary) -> Plot:
    figure = canvas()
    number = max(map(len, summary.counts.values()), default=0)
    names = [f"dictionary {i + 1}" for i in range(number)]
    for kind, colour in reversed(COLOUR.items()):
        sizes = list(summary.counts.get(kind, ()))
        figure.add_trace(
            go.Bar(
                x=names[: len(sizes)],
                y=sizes,
                name=kind,
                marker={"color": colour, "opacity": 0.75},
                text=sizes,
                texttemplate="%{text}",
                textposition="inside",
                textangle=0,
                insidetextfont={"color": "var(--heat-ink)"},
                hovertemplate=f"%{{x}}: %{{y}} {kind}s<extra></extra>",
            )
        )
    figure.update_layout(barmode="stack", bargap=0.35)
    figure.update_xaxes(showgrid=False)
    figure.update_yaxes(title="features that fire", rangemode="tozero")
    return Plot("counts", "How many of each class", figure, width="third")


def _table(summary: Summary) -> Table:
    number = max(map(len, summary.counts.values()), default=0)
    rows = [
        (kind, *(words.count(n) for n in sizes), words.percent(summary.variation.get(kind)))
        for kind, sizes in summary.counts.items()
    ]
    return Table(("class", *(f"dictionary {i + 1}" for i in range(number)), "deviation over mean"), rows)
