"""How it is said and drawn."""

from __future__ import annotations

from typing import Literal

import pandas as pd
import plotly.graph_objects as go

from writesae.evals.common.result import Result
from writesae.evals.fidelity.config import FidelityConfig
from writesae.evals.fidelity.summary import ALL, CONDITIONS, Replaced, Summary
from writesae.show import words
from writesae.show.figures import Dot, canvas, diagonal, dots, drawn_of, label, lines_of, rounded, thinned, upright
from writesae.show.parts import Panel, Plot, Table

COLOUR = {"native": "var(--random)", "reconstruction": "var(--atom)", "zero": "var(--delete)"}


def finding(result: Result[FidelityConfig, Summary]) -> str:
    """What all reconstructed states together cost."""
    summary, whole = result.summary, result.summary.scopes[ALL]
    low, high = whole.intervals["reconstruction"]
    change = whole.perplexity["reconstruction"] - whole.perplexity["native"]
    said = (
        f"Reconstructed states change the loss of the text that follows by "
        f"{words.signed(whole.added['reconstruction'], 4)} nats a token (95 % interval over passages "
        f"{words.span((low, high), 4)}; n = {words.plural(summary.passages, 'passage')}, "
        f"{words.count(summary.tokens)} tokens), the perplexity by {words.signed(change, 3)}"
    )
    if whole.above < 0.5:
        said += f": too small to decide, above rounding in {words.percent(whole.above)} of passages. "
    else:
        said += ". " if low > 0 or high < 0 else ": too small to decide, as the interval does not exclude zero. "
    return f"{said}Loss recovered, of what zeroed states lose: {words.percent(whole.recovered)}."


def panel(result: Result[FidelityConfig, Summary]) -> Panel:
    """Perplexities, the loss that each replacement adds, and passage by passage."""
    summary, records = result.summary, result.records
    whole = summary.scopes[ALL]
    plots = [_perplexity(summary), _added(whole), _passages(records[records.scope == ALL])]
    if len(summary.scopes) > 1:
        plots.append(_scopes(summary.scopes))
    rows = [("native", words.plain(whole.perplexity["native"], 3), words.MISSING, words.MISSING)]
    for scope, one in summary.scopes.items():
        for name in CONDITIONS[1:] if scope == ALL else CONDITIONS[1:2]:
            numbers = (words.signed(one.added[name], 4), words.span(one.intervals[name], 4))
            about = name if scope == ALL else f"{name} of {scope} alone"
            rows.append((about, words.plain(one.perplexity[name], 3), *numbers))
    table = Table(("states", "perplexity", "added nats a token, mean over passages", "95 % interval"), rows)
    note = f"Signed ranks over passages, reconstruction against native: p = {words.quantity(whole.wilcoxon.p)}."
    low, high = whole.intervals["zero"]
    if low < 0 < high:
        note += " The interval of what zeroed states lose holds zero: the share recovered of it says little."
    return Panel(tuple(plots), table, note)


def _perplexity(summary: Summary) -> Plot:
    figure, whole = canvas(), summary.scopes[ALL]
    values = list(whole.perplexity.values())
    figure.add_trace(
        go.Bar(
            x=[label(name) for name in whole.perplexity],
            y=rounded(values),
            marker={"color": [COLOUR[name] for name in whole.perplexity], "opacity": 0.8},
            text=[words.decimals(value) for value in values],
            textposition="outside",
            cliponaxis=False,
            showlegend=False,
            hovertemplate="%{x}: %{text}<extra></extra>",
        )
    )
    figure.update_layout(bargap=0.35)
    figure.update_xaxes(showgrid=False)
    figure.update_yaxes(title="perplexity", range=[0, max(values) * 1.12])
    caption = (
        f"Of the suffixes, {words.count(summary.tokens)} tokens. Loss recovered: {words.percent(whole.recovered)}."
    )
    return Plot("perplexity", "Perplexity", figure, caption, width="third")


def _added(whole: Replaced) -> Plot:
    lines = {name: Dot(name, value, whole.intervals[name]) for name, value in whole.added.items()}
    return _whiskers("added", "What each replacement adds", lines, "third")


def _scopes(scopes: dict[str, Replaced]) -> Plot:
    """Loss that reconstruction adds where all heads, those of one layer, or one head are replaced."""
    lines = {}
    for scope, one in scopes.items():
        name = "all together" if scope == ALL else scope
        said = f"recovered {words.percent(one.recovered)}"
        lines[name] = Dot(name, one.added["reconstruction"], one.intervals["reconstruction"], said)
    return _whiskers("scopes", "Which heads cost what", lines, "whole")


def _whiskers(name: str, title: str, lines: dict[str, Dot], width: Literal["third", "whole"]) -> Plot:
    figure = canvas()
    lines_of(figure, list(lines))
    for i, (line, dot) in enumerate(lines.items()):
        dots(figure, line, [dot], COLOUR.get(line, COLOUR["reconstruction"]), float(i), lambda v: words.signed(v, 4))
    upright(figure, 0.0, "native", dash="solid")
    figure.update_layout(showlegend=False)
    figure.update_xaxes(title="added loss (nats a token)")
    caption = "Bars: 95 % bootstrap intervals over passages."
    return Plot(name, title, figure, caption, width)


def _passages(records: pd.DataFrame) -> Plot:
    """Loss added by zeroed states (x) against loss added by reconstructed ones (y), one dot a passage."""
    figure = canvas()
    kept = records.iloc[thinned(len(records))]
    x, y = (((kept[f"nll_{c}"] - kept.nll_native) / kept.tokens).to_numpy() for c in ("zero", "reconstruction"))
    figure.add_trace(
        go.Scatter(
            x=rounded(x),
            y=rounded(y),
            mode="markers",
            showlegend=False,
            customdata=[int(n) for n in kept.passage],
            marker={"color": "var(--atom)", "size": 7, "opacity": 0.7},
            hovertemplate="passage %{customdata}<br>zeroed %{x:.4f}, reconstructed %{y:.4f}<extra></extra>",
        )
    )
    reach = float(max(abs(x).max(), abs(y).max())) * 1.1 or 1.0
    diagonal(figure, -reach, reach)
    figure.add_hline(y=0, line={"color": "var(--ink-soft)", "width": 1.25, "dash": "dash"})
    figure.update_xaxes(title="zeroed states (nats a token)", range=[-reach, reach])
    figure.update_yaxes(title="reconstruction", range=[-reach, reach])
    caption = drawn_of(len(kept), len(records), "passages") + " Dashed: everything recovered; dotted: nothing."
    return Plot("passages", "Loss added, by passage", figure, caption, width="third")
