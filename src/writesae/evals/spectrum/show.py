"""How it is said and drawn."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from writesae.evals.common.result import Result
from writesae.evals.spectrum.config import SpectrumConfig
from writesae.evals.spectrum.summary import MEMORY, Summary
from writesae.show import words
from writesae.show.figures import NUMERICAL_ZERO, canvas, corner, drawn_of, rounded, thinned
from writesae.show.heat_map import Grid, heat_map
from writesae.show.parts import Panel, Plot, Table

MOST_LINES = 60
"""Heads whose singular values are drawn, beside the chosen one."""
LEAST_SHARE = 1e-4
"""Where the axis of singular values ends: less is rounding."""
FORMS = {"delta": "delta write", "value": "native write b k v^T, as there is no delta write"}


class Map(NamedTuple):
    """One number of every head, as a heat map and a column of the table."""

    column: str
    title: str
    caption: str
    write: Callable[[float | None], str]
    floor: float | None = None
    """Of a logarithmic shading."""


def maps(config: SpectrumConfig) -> list[Map]:
    """Everything that is drawn of the heads."""
    effects = [
        Map(f"delete_kl_{timing}", f"Deleting a write, {words.timing(timing)}",
            "Median KL of the next scored token, in nats; logarithmic shading.", words.compact, NUMERICAL_ZERO)
        for timing in config.timings
    ]  # fmt: skip
    share = "Norm of one write over the norm of the state after it, median."
    return [
        Map("decay", "Decay", "Mean share of the state that a token keeps.", words.fixed),
        Map("write_share", "Write share", share, words.compact),
        Map("stable_rank", "Stable rank", "Squared norm over the largest squared singular value.", words.compact),
        *effects,
    ]


def finding(result: Result[SpectrumConfig, Summary]) -> str:
    """How many heads remember, and where a write matters most."""
    summary = result.summary
    text = (
        f"{words.count(summary.remembering)} of {words.plural(summary.heads, 'recurrent head')} hold more than their "
        "last write; "
    )
    number = f"(n = {words.plural(result.config.writes, 'write')} a head, {words.timing(result.config.timings[0])})"
    if summary.above < 0.5:
        return (
            f"{text}where writes matter most is too small to decide: even at {summary.default_site} only "
            f"{words.percent(summary.above)} of deletions stand above rounding {number}."
        )
    return (
        f"{text}{'of these, ' if summary.remembering else ''}writes matter most at {summary.default_site}, where "
        f"deleting one ({FORMS[summary.native_write]}) moves the next scored token by a median "
        f"{words.quantity(summary.delete_kl)} nats, at {words.percent(summary.above)} of them by more than rounding "
        f"{number}."
    )


def panel(result: Result[SpectrumConfig, Summary]) -> Panel:
    """Heat maps of the heads, effect against memory, and singular values."""
    records = result.records
    site = [f"L{layer}.H{head}" for layer, head in zip(records["layer"], records["head"], strict=True)]
    heads = records.assign(site=site, chosen=[name == result.summary.default_site for name in site])
    drawn, first = maps(result.config), f"delete_kl_{result.config.timings[0]}"
    plots = (*(_map(heads, one) for one in drawn), _memory(heads, first), _curves(heads))
    strongest = heads.sort_values(first, ascending=False).head(8)
    rows = [(str(r["site"]), *(one.write(float(r[one.column])) for one in drawn)) for r in strongest.to_dict("records")]
    table = Table(("strongest heads", *(one.title.lower() for one in drawn)), rows)
    return Panel(
        plots, table, "Ringed: the head to begin with. A head remembers where one write is at most half of its state."
    )


def _map(heads: pd.DataFrame, one: Map) -> Plot:
    layers, names = sorted(heads["layer"].unique()), sorted(heads["head"].unique())
    found = {(a, b): float(v) for a, b, v in zip(heads["layer"], heads["head"], heads[one.column], strict=True)}
    values = [[found.get((layer, head)) for head in names] for layer in layers]
    chosen = heads[heads.chosen]
    ringed = [(layers.index(a), names.index(b)) for a, b in zip(chosen["layer"], chosen["head"], strict=True)]
    grid = Grid([f"L{layer}" for layer in layers], [f"H{head}" for head in names], values)
    low, high = (words.quantity(float(x)) for x in (heads[one.column].min(), heads[one.column].max()))
    figure = heat_map(grid, one.write, floor=one.floor, ringed=ringed)
    return Plot(one.column, one.title, figure, f"{one.caption} From {low} to {high}.")


def _memory(heads: pd.DataFrame, column: str) -> Plot:
    """Write share (x) against what deleting a write does (y), one dot a head."""
    figure = canvas(360)
    for chosen, rows in heads.groupby("chosen"):
        effect = np.maximum(rows[column].to_numpy(dtype=float), NUMERICAL_ZERO)
        figure.add_trace(
            go.Scatter(
                x=rounded(rows.write_share.to_numpy(dtype=float)),
                y=rounded(effect),
                text=list(rows.site),
                name="chosen" if chosen else "other heads",
                mode="markers",
                marker={"color": f"var(--{'write' if chosen else 'heat'})", "size": 12 if chosen else 7,
                        "opacity": 0.8},
                hovertemplate="%{text}<br>write share %{x:.3g}, KL %{y:.3g}<extra></extra>",
                showlegend=False,
            )
        )  # fmt: skip
        for x, y, site in zip(rows.write_share, np.log10(effect), rows.site, strict=True) if chosen else ():
            font = {"size": 13, "color": "var(--ink)"}
            figure.add_annotation(
                x=float(x), y=float(y), yshift=16, text=site, showarrow=False, bgcolor="var(--surface)", font=font
            )
    figure.add_vline(x=MEMORY, line={"color": "var(--ink-soft)", "width": 1.25, "dash": "dash"})
    figure.update_xaxes(title="share of one write in the state", range=[-0.03, 1.04])
    figure.update_yaxes(title="KL of deleting it (nats)", type="log", dtick=1, exponentformat="power")
    corner(figure, "remembers", top=False, left=True)
    corner(figure, "last write only", top=False, left=False)
    return Plot("memory", "Memory and effect", figure, "One dot a head. Dashed: a write is half of the state.")


def _curves(heads: pd.DataFrame) -> Plot:
    """Singular values of the state as shares of its norm, one line a head."""
    figure = canvas(360)
    others = heads[~heads.chosen]
    drawn = pd.concat([others.iloc[thinned(len(others), MOST_LINES)], heads[heads.chosen]])
    for site, chosen, shares in zip(drawn.site, drawn.chosen, drawn.singular_values, strict=True):
        values = np.asarray(shares, dtype=float)
        figure.add_trace(
            go.Scatter(
                x=list(range(1, len(values) + 1)),
                y=rounded(np.where(values < LEAST_SHARE, np.nan, values)),
                name=site,
                mode="lines",
                line={"color": f"var(--{'write' if chosen else 'heat'})", "width": 3 if chosen else 1.25},
                opacity=1 if chosen else 0.45,
                hovertemplate=f"{site}, number %{{x}}: %{{y:.3g}}<extra></extra>",
                showlegend=False,
            )
        )
    figure.update_xaxes(title="number of the singular value")
    figure.update_yaxes(title="share of the state\u2019s norm", type="log", dtick=1, exponentformat="power")
    caption = (
        f"{drawn_of(len(drawn), len(heads), 'heads')} Median over positions; orange: the chosen head. "
        f"Lines end at {words.power(LEAST_SHARE)}."
    )
    return Plot("singular", "Singular values of the state", figure, caption)
