"""Where in the model a write matters: every recurrent head, measured without a dictionary."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from writesae.errors import DataError
from writesae.evals.old.measured import Measured
from writesae.show import words
from writesae.show.figures import NUMERICAL_ZERO, canvas, corner, drawn_of, rounded, thinned
from writesae.show.heat_map import Grid, heat_map
from writesae.show.parts import Panel, Plot, Table

MEMORY = 0.5
"""A head remembers where a token's own write is at most this share of the state after it."""


@dataclass(frozen=True)
class Summary:
    """What the audit chooses."""

    default_site: str


MOST_LINES = 60
"""Heads whose singular values are drawn, beside the chosen one."""

LEAST_SHARE = 1e-4
"""Where the axis of singular values ends: less is rounding."""

Map = tuple[str, str, str, Callable[[float | None], str], float | None]

MAPS: tuple[Map, ...] = (
    ("decay", "Decay", "Mean share of the state that a token keeps.", words.fixed, None),
    (
        "write_share",
        "Write share",
        "Norm of one write over the norm of the state after it, median.",
        words.compact,
        None,
    ),
    (
        "stable_rank",
        "Stable rank",
        "Squared norm over the largest squared singular value, median.",
        words.compact,
        None,
    ),
    (
        "delete_kl",
        "Effect of deleting a write",
        "Median KL of the next token, in nats; logarithmic shading.",
        words.compact,
        NUMERICAL_ZERO,
    ),
)
"""(column, title, caption, how numbers are written, floor of a logarithmic shading)."""


def build(of: Measured) -> Panel:
    """Four heat maps of the heads, singular values where they were kept, and effect against memory."""
    columns = [column for column, *_ in MAPS]
    of.need(["chosen"])
    heads, site = of.numeric(["layer", "head", *columns]), of.read(Summary).default_site
    heads = heads.assign(site=[f"L{int(a)}.H{int(b)}" for a, b in zip(heads.layer, heads["head"], strict=True)])
    plots = [_map(heads, *one) for one in MAPS]
    plots.append(_memory(heads))
    if "singular_values" in heads:
        plots.append(_curves(heads, of.file))
    remembers = heads[heads.write_share <= MEMORY]
    best = (remembers if len(remembers) else heads).sort_values("delete_kl").iloc[-1]
    finding = (
        f"{words.count(len(remembers))} of {words.plural(len(heads), 'recurrent head')} hold more than their last "
        f"write; {'of these, ' if len(remembers) else ''}writes matter most at {best.site}, where deleting one "
        f"moves the next token by a median {words.quantity(float(best.delete_kl))} nats."
    )
    if site != best.site:
        finding += f" The head of this result is {words.visible(site)}."
    return Panel(
        finding,
        tuple(plots),
        _table(heads),
        "Ringed: the head that was chosen. A head remembers where one write is at most half of its state.",
    )


def _map(
    heads: pd.DataFrame,
    column: str,
    title: str,
    caption: str,
    write: Callable[[float | None], str],
    floor: float | None,
) -> Plot:
    layers, names = sorted(heads.layer.unique()), sorted(heads["head"].unique())
    found = {(a, b): float(v) for a, b, v in zip(heads.layer, heads["head"], heads[column], strict=True)}
    values = [[found.get((layer, head)) for head in names] for layer in layers]
    chosen = heads[heads.chosen.astype(bool)]
    ringed = [(layers.index(a), names.index(b)) for a, b in zip(chosen.layer, chosen["head"], strict=True)]
    grid = Grid([f"L{int(a)}" for a in layers], [f"H{int(b)}" for b in names], values)
    figure = heat_map(grid, write, floor=floor, ringed=ringed)
    known = heads[column][np.isfinite(heads[column])]
    ends = f" From {words.quantity(float(known.min()))} to {words.quantity(float(known.max()))}." if len(known) else ""
    return Plot(column, title, figure, caption + ends)


def _memory(heads: pd.DataFrame) -> Plot:
    """Write share (x) against what deleting a write does (y), one dot a head."""
    figure = canvas(360)
    for chosen, rows in heads.groupby(heads.chosen.astype(bool)):
        effect = np.maximum(rows.delete_kl.to_numpy(), NUMERICAL_ZERO)
        figure.add_trace(
            go.Scatter(
                x=rounded(rows.write_share.to_numpy()),
                y=rounded(effect),
                text=list(rows.site),
                name="chosen" if chosen else "other heads",
                mode="markers",
                marker={
                    "color": "var(--write)" if chosen else "var(--heat)",
                    "size": 12 if chosen else 7,
                    "opacity": 0.8,
                },
                hovertemplate="%{text}<br>write share %{x:.3g}, KL %{y:.3g}<extra></extra>",
                showlegend=False,
            )
        )
        for x, y, site in zip(rows.write_share, np.log10(effect), rows.site, strict=True) if chosen else ():
            figure.add_annotation(
                x=float(x),
                y=float(y),
                yshift=16,
                text=site,
                showarrow=False,
                bgcolor="var(--surface)",
                font={"size": 13, "color": "var(--ink)"},
            )
    figure.add_vline(x=MEMORY, line={"color": "var(--ink-soft)", "width": 1.25, "dash": "dash"})
    figure.update_xaxes(title="share of one write in the state", range=[-0.03, 1.04])
    figure.update_yaxes(title="KL of deleting it (nats)", type="log", dtick=1, exponentformat="power")
    corner(figure, "remembers", top=False, left=True)
    corner(figure, "last write only", top=False, left=False)
    return Plot("memory", "Memory and effect", figure, "One dot a head. Dashed: a write is half of the state.")


def _curves(heads: pd.DataFrame, file: str) -> Plot:
    """Singular values of the state as shares of its norm, one line a head."""
    figure = canvas(360)
    chosen_one = heads.chosen.astype(bool)
    others = heads[~chosen_one]
    drawn = pd.concat([others.iloc[thinned(len(others), MOST_LINES)], heads[chosen_one]])
    for row in drawn.to_dict("records"):
        chosen = bool(row["chosen"])
        try:
            values = np.asarray(row["singular_values"], dtype=np.float64).reshape(-1)
        except (TypeError, ValueError):
            raise DataError(f"the records of {file} hold singular values that are no numbers") from None
        figure.add_trace(
            go.Scatter(
                x=list(range(1, len(values) + 1)),
                y=rounded(np.where(values < LEAST_SHARE, np.nan, values)),
                name=str(row["site"]),
                mode="lines",
                line={"color": "var(--write)" if chosen else "var(--heat)", "width": 3 if chosen else 1.25},
                opacity=1 if chosen else 0.45,
                hovertemplate=f"{row['site']}, number %{{x}}: %{{y:.3g}}<extra></extra>",
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


def _table(heads: pd.DataFrame) -> Table:
    strongest = heads.sort_values("delete_kl", ascending=False).head(8)
    rows = [
        (str(row["site"]), *(write(float(str(row[column]))) for column, _, _, write, _ in MAPS))
        for row in strongest.to_dict("records")
    ]
    return Table(("strongest heads", *(title.lower() for _, title, *_ in MAPS)), rows)
