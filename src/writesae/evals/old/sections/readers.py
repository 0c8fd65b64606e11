"""Which later heads read an atom, against how much they read a random write of the same size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from writesae.errors import DataError, InputError
from writesae.evals.old.measured import Measured
from writesae.show import words
from writesae.show.figures import canvas, drawn_of, rounded, thinned
from writesae.show.heat_map import Grid, heat_map
from writesae.show.parts import Panel, Plot, Table
from writesae.types import Site


@dataclass(frozen=True)
class Reader:
    """A later head and how it reads one atom."""

    feature: int
    site: str
    ratio: float | None


@dataclass(frozen=True)
class Summary:
    """Over atoms and later heads."""

    atoms: int
    median: float | None
    strongest: tuple[Reader, ...]


def build(of: Measured) -> Panel:
    """Heat map of later heads, and how far each atom's strongest reader stands out."""
    of.need(["reader"])
    records, summary = of.numeric(["feature", "atom", "random"]), of.read(Summary)
    ratios = by_head(records)
    sites = _sites(ratios, of.file)
    best = summary.strongest[0] if summary.strongest else None
    finding = (
        f"The median later head reads an atom {words.decimals(summary.median)} times as strongly as a random write "
        "of the same size "
        f"(n = {words.plural(summary.atoms, 'atom')}, {words.plural(len(sites), 'later head')}, "
        f"{words.count(len(records))} readings)"
    )
    if best is not None:
        finding += f"; the strongest reader is {words.visible(best.site)}, {words.decimals(best.ratio)} times, "
        finding += f"of feature {best.feature}"
    rows = [(f"feature {r.feature}", words.visible(r.site), words.decimals(r.ratio)) for r in summary.strongest[:12]]
    note = "Reading: norm of the change in a later head\u2019s output at the next token; ratio of medians over firings."
    if len(summary.strongest) > len(rows):
        note += f" The table has the first {len(rows)} of {len(summary.strongest)} atoms."
    return Panel(
        finding + ".", (_map(ratios, sites), _atoms(ratios)), Table(("atom", "strongest reader", "ratio"), rows), note
    )


def by_head(records: pd.DataFrame) -> pd.DataFrame:
    """One row an atom and later head: the median reading over the median random one."""
    medians = records.groupby(["feature", "reader"])[["atom", "random"]].median()
    ratio = (medians["atom"] / medians["random"].where(medians["random"] > 0)).rename("ratio")
    return ratio.reset_index()


def _sites(ratios: pd.DataFrame, file: str) -> dict[str, Site]:
    try:
        return {name: Site.parse(name) for name in map(str, ratios.reader.unique())}
    except InputError as error:
        raise DataError(f"the records of {file} name a reader that is no head: {words.visible(str(error))}") from None


def _map(ratios: pd.DataFrame, sites: dict[str, Site]) -> Plot:
    median = ratios.groupby("reader").ratio.median()
    layers, heads = sorted({s.layer for s in sites.values()}), sorted({s.head for s in sites.values()})
    found = {(site.layer, site.head): float(median[name]) for name, site in sites.items()}
    values = [[found.get((layer, head)) for head in heads] for layer in layers]
    figure = heat_map(
        Grid([f"L{layer}" for layer in layers], [f"H{head}" for head in heads], values),
        words.decimals,
        around=1.0,
    )
    caption = "Median ratio over atoms. Blue-green: more than a random write, orange: less; shading is logarithmic."
    return Plot("heads", "Where atoms are read", figure, caption)


def _atoms(ratios: pd.DataFrame) -> Plot:
    """Every later head of every atom, atoms ordered by their strongest reader."""
    figure = canvas()
    strongest = ratios.groupby("feature").ratio.max().sort_values(ascending=False)
    shown = strongest.index[:60]
    place = {feature: i for i, feature in enumerate(shown)}
    kept = ratios[ratios.feature.isin(shown)]
    top = kept.ratio == kept.feature.map(strongest)
    others = kept[~top]
    drawn = others.iloc[thinned(len(others))]
    for rows, name, colour, size in (
        (drawn, "other later heads", "random", 5),
        (kept[top], "strongest reader", "heat", 9),
    ):
        figure.add_trace(
            go.Scatter(
                x=[place[f] for f in rows.feature],
                y=rounded(rows.ratio.to_numpy(dtype=float)),
                customdata=[[int(f), words.visible(str(r))] for f, r in zip(rows.feature, rows.reader, strict=True)],
                name=name,
                mode="markers",
                marker={"color": f"var(--{colour})", "size": size, "opacity": 0.85},
                hovertemplate="feature %{customdata[0]}, %{customdata[1]}: %{y:.3g}<extra></extra>",
            )
        )
    figure.add_hline(y=1, line={"color": "var(--ink-soft)", "width": 1.25, "dash": "dash"})
    known = kept.ratio[np.isfinite(kept.ratio) & (kept.ratio > 0)]
    if len(known):
        low, high = float(known.min()) / 1.2, float(known.max()) * 1.2
        marks = [m for m in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100) if low <= m <= high]
        figure.update_yaxes(
            type="log", range=[np.log10(low), np.log10(high)], tickvals=marks, ticktext=[f"{m:g}" for m in marks]
        )
    figure.update_yaxes(title="ratio to a random write")
    figure.update_xaxes(title="atoms, strongest reader first", showticklabels=False, ticks="", showgrid=False)
    caption = f"{len(shown)} of {len(strongest)} atoms. Dashed: as a random write."
    if len(drawn) < len(others):
        caption += f" {drawn_of(len(drawn), len(others), 'other readings')}"
    return Plot("atoms", "Atom by atom", figure, caption)
