"""What it costs the text that follows to replace a layer's states by their reconstruction."""

from __future__ import annotations

from dataclasses import dataclass, field

import pandas as pd
import plotly.graph_objects as go

from writesae.evals.common.stats import clustered
from writesae.evals.old.measured import Measured
from writesae.evals.old.structure import Test
from writesae.show import words
from writesae.show.figures import (
    Dot,
    Interval,
    canvas,
    diagonal,
    dots,
    drawn_of,
    label,
    lines_of,
    rounded,
    thinned,
    upright,
)
from writesae.show.parts import Panel, Plot, Table

COLOUR = {"native": "var(--random)", "reconstruction": "var(--atom)", "zero": "var(--delete)"}


@dataclass(frozen=True)
class Replaced:
    """Over all scored suffix tokens, with the states of some heads replaced."""

    perplexity: dict[str, float | None]
    delta: float | None
    nats: float | None
    interval: Interval | None
    recovered: float | None
    wilcoxon: Test


@dataclass(frozen=True)
class Summary(Replaced):
    """Every head that has a dictionary at once."""

    tokens: int = field(kw_only=True)
    scopes: dict[str, Replaced] = field(default_factory=dict)
    """A head, or the heads of a layer -> the same of these alone."""


def build(of: Measured) -> Panel:
    """Perplexities, the loss that each replacement adds, and passage by passage."""
    summary = of.read(Summary)
    conditions = [name for name in summary.perplexity if name != "native"]
    records = of.numeric(["passage", "tokens", "nll_native", "nll_reconstruction", *(f"nll_{c}" for c in conditions)])
    added = pd.DataFrame({c: (records[f"nll_{c}"] - records.nll_native) / records.tokens for c in conditions})
    intervals: dict[str, Interval] = {
        c: clustered(added[c], records.passage, of.setting(int, "seed")) for c in conditions
    }
    plots = [_perplexity(summary), _added(added, intervals)]
    if "zero" in conditions:
        plots.append(_passages(added, records.passage.tolist()))
    if summary.scopes:
        plots.append(_scopes(summary))
    finding = (
        f"Reconstructed states change the loss of the text that follows by {words.signed(summary.nats, 4)} nats a "
        "token "
        f"(95 % interval over passages {words.span(summary.interval, 4)}; n = {words.plural(len(records), 'passage')}, "
        f"{words.count(summary.tokens)} tokens), the perplexity by {words.signed(summary.delta, 3)}. "
        f"Loss recovered, of what zeroed states lose: {words.percent(summary.recovered)}."
    )
    span = added["zero"].mean() if "zero" in conditions else None
    note = f"Signed ranks over passages, reconstruction against native: p = {words.quantity(summary.wilcoxon.p)}."
    if span is not None and intervals["zero"][0] < 0 < intervals["zero"][1]:
        note += " The interval of what zeroed states lose holds zero: the share recovered of it says little."
    return Panel(finding, tuple(plots), _table(summary, added, intervals), note)


def _perplexity(summary: Summary) -> Plot:
    figure = canvas()
    names, values = list(summary.perplexity), list(summary.perplexity.values())
    figure.add_trace(
        go.Bar(
            x=[label(name) for name in names],
            y=rounded(values),
            marker={"color": [COLOUR.get(name, "var(--violet)") for name in names], "opacity": 0.8},
            text=[words.decimals(value) for value in values],
            textposition="outside",
            cliponaxis=False,
            showlegend=False,
            hovertemplate="%{x}: %{text}<extra></extra>",
        )
    )
    figure.update_layout(bargap=0.35)
    figure.update_xaxes(showgrid=False)
    top = max((value for value in values if value is not None), default=1.0)
    figure.update_yaxes(title="perplexity", range=[0, top * 1.12])
    caption = (
        f"Of the suffixes, {words.count(summary.tokens)} tokens. Loss recovered: {words.percent(summary.recovered)}."
    )
    return Plot("perplexity", "Perplexity", figure, caption, width="third")


def _added(added: pd.DataFrame, intervals: dict[str, Interval]) -> Plot:
    figure = canvas()
    names = [str(name) for name in added.columns]
    lines_of(figure, names)
    for i, name in enumerate(names):
        entries = [Dot(name, float(added[name].mean()), intervals[name])]
        dots(figure, name, entries, COLOUR.get(name, "var(--violet)"), float(i), lambda v: words.signed(v, 4))
    upright(figure, 0.0, "native", dash="solid")
    figure.update_layout(showlegend=False, height=330)
    figure.update_xaxes(title="added loss (nats a token)")
    return Plot(
        "added", "What each replacement adds", figure, "Bars: 95 % bootstrap intervals over passages.", width="third"
    )


def _scopes(summary: Summary) -> Plot:
    """Loss that reconstruction adds where all heads, those of one layer, or one head are replaced."""
    parts: dict[str, Replaced] = {"all together": summary, **summary.scopes}
    figure = canvas()
    lines_of(figure, list(parts))
    entries = [
        Dot(name, one.nats, one.interval, f"recovered {words.percent(one.recovered)}") for name, one in parts.items()
    ]
    dots(figure, "reconstruction", entries, COLOUR["reconstruction"], 0.0, lambda v: words.signed(v, 4))
    upright(figure, 0.0, "native", dash="solid")
    figure.update_layout(showlegend=False)
    figure.update_xaxes(title="added loss (nats a token)")
    return Plot(
        "scopes", "Which heads cost what", figure, "Bars: 95 % bootstrap intervals over passages.", width="whole"
    )


def _passages(added: pd.DataFrame, passages: list[float]) -> Plot:
    """Loss added by zeroed states (x) against loss added by reconstructed ones (y), one dot a passage."""
    figure = canvas()
    rows = thinned(len(added))
    x, y = added["zero"].to_numpy()[rows], added["reconstruction"].to_numpy()[rows]
    figure.add_trace(
        go.Scatter(
            x=rounded(x),
            y=rounded(y),
            mode="markers",
            showlegend=False,
            customdata=[int(passages[i]) for i in rows],
            marker={"color": "var(--atom)", "size": 7, "opacity": 0.7},
            hovertemplate="passage %{customdata}<br>zeroed %{x:.4f}, reconstructed %{y:.4f}<extra></extra>",
        )
    )
    reach = float(max(abs(x).max(), abs(y).max())) * 1.1 or 1.0
    diagonal(figure, -reach, reach)
    figure.add_hline(y=0, line={"color": "var(--ink-soft)", "width": 1.25, "dash": "dash"})
    figure.update_xaxes(title="zeroed states (nats a token)", range=[-reach, reach])
    figure.update_yaxes(title="reconstruction", range=[-reach, reach])
    caption = drawn_of(len(rows), len(added), "passages") + " Dashed: everything recovered; dotted: nothing."
    return Plot("passages", "Loss added, by passage", figure, caption, width="third")


def _table(summary: Summary, added: pd.DataFrame, intervals: dict[str, Interval]) -> Table:
    rows = []
    for name, value in summary.perplexity.items():
        if name in added:
            rows.append(
                (
                    name,
                    words.plain(value, 3),
                    words.signed(float(added[name].mean()), 4),
                    words.span(intervals[name], 4),
                )
            )
        else:
            rows.append((name, words.plain(value, 3), words.MISSING, words.MISSING))
    for scope, one in summary.scopes.items():
        perplexity = words.plain(one.perplexity.get("reconstruction"), 3)
        name = f"reconstruction of {scope} alone"
        rows.append((name, perplexity, words.signed(one.nats, 4), words.span(one.interval, 4)))
    return Table(("states", "perplexity", "added nats a token, mean over passages", "95 % interval"), rows)
