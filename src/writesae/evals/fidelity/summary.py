"""What the records say: in numbers, in words, in figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from writesae.evals.common.conditions import common
from writesae.evals.common.floor import above
from writesae.evals.common.result import Result
from writesae.evals.common.stats import Interval, Test, clustered, wilcoxon
from writesae.evals.fidelity import FidelityConfig
from writesae.show import words
from writesae.show.figures import Dot, canvas, diagonal, drawn_of, label, level, marks, rounded, thinned, whiskers
from writesae.show.parts import Panel, Plot, Table

CONDITIONS = ("native", "reconstruction", "zero")
ALL = "all"
"""The scope of every head that has a dictionary."""
COLUMNS = common("passage") | {
    "scope": "whose states are replaced: all heads that have a dictionary, those of a layer (L5), or one (L5.H0)",
    "tokens": "tokens scored in its suffix",
    "nll_native": "summed negative log-likelihood of the suffix, nats",
    "nll_again": "the same after the states were nudged by one unit in the last place",
    "nll_reconstruction": "the same after states became their reconstruction",
    "nll_zero": "the same after states became zero",
}


@dataclass(frozen=True)
class Replaced:
    """Over all scored suffix tokens, with the states of one scope replaced."""

    perplexity: dict[str, float]
    """Condition -> exp(mean negative log-likelihood)."""
    added: dict[str, float]
    """Condition -> mean negative log-likelihood over the native one, nats a token."""
    intervals: dict[str, Interval]
    """Of these, bootstrap over passages."""
    above: float
    """Share of passages whose loss reconstruction changes by more than rounding does."""
    recovered: float
    """Loss recovered: 1 - added by reconstruction / added by zero; nan where zero states do not raise the loss."""
    wilcoxon: Test
    """Signed ranks over passages, reconstruction against native."""


@dataclass(frozen=True)
class Summary:
    """By whose states are replaced."""

    passages: int
    tokens: int
    """Scored."""
    scopes: dict[str, Replaced]
    """"all", then "L5.H0" (that head alone) or "L5" (the heads of that layer that have a dictionary)."""


def summarise(tables: Mapping[str, pd.DataFrame], config: FidelityConfig) -> Summary:
    """The summary of the records."""
    records = tables["records"]
    scopes = {str(name): _replaced(table, config) for name, table in records.groupby("scope", sort=False)}
    whole = records[records.scope == ALL]
    return Summary(len(whole), int(whole.tokens.sum()), scopes)


def _replaced(records: pd.DataFrame, config: FidelityConfig) -> Replaced:
    tokens, native = int(records.tokens.sum()), records.nll_native
    mean = {name: float(records[f"nll_{name}"].sum() / tokens) for name in CONDITIONS}
    added = {name: mean[name] - mean["native"] for name in CONDITIONS[1:]}
    each = {name: ((records[f"nll_{name}"] - native) / records.tokens).to_numpy() for name in added}
    effect, floor = (np.square(records[f"nll_{name}"] - native) for name in ("reconstruction", "again"))
    return Replaced(
        perplexity={name: float(np.exp(value)) for name, value in mean.items()},
        added=added,
        intervals={name: clustered(x, records.passage.to_numpy(), config.seed) for name, x in each.items()},
        above=float(above(effect, floor).mean()),
        recovered=1 - added["reconstruction"] / added["zero"] if added["zero"] > 0 else float("nan"),
        wilcoxon=wilcoxon(records.nll_reconstruction, native),
    )


COLOUR = {"native": "random", "reconstruction": "atom", "zero": "delete"}


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
    return said + recovered_words(whole)


def recovered_words(whole: Replaced) -> str:
    """The share of the loss of zeroed states that reconstruction keeps, or that there is none."""
    if not words.finite(whole.recovered):
        return "Zeroed states do not raise the loss here: there is nothing to recover."
    return f"Loss recovered, of what zeroed states lose: {words.percent(whole.recovered)}."


def panel(result: Result[FidelityConfig, Summary]) -> Panel:
    """Perplexities, the loss that each replacement adds, and passage by passage."""
    summary, records = result.summary, result.records
    whole = summary.scopes[ALL]
    added = [(name, COLOUR[name], Dot(name, value, whole.intervals[name])) for name, value in whole.added.items()]
    plots = [_perplexity(summary), _whiskers("added", "What each replacement adds", added, "third")]
    plots.append(_passages(records[records.scope == ALL]))
    if len(summary.scopes) > 1:
        lines, what = [], "reconstruction"
        for scope, one in summary.scopes.items():
            name, said = "all together" if scope == ALL else scope, recovered_words(one)
            lines.append((name, COLOUR[what], Dot(name, one.added[what], one.intervals[what], said)))
        plots.append(_whiskers("scopes", "Which heads cost what", lines, "whole"))
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
            marker={"color": [f"var(--{COLOUR[name]})" for name in whole.perplexity], "opacity": 0.8},
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
    caption = f"Of the suffixes, {words.count(summary.tokens)} tokens. {recovered_words(whole)}"
    return Plot("perplexity", "Perplexity", figure, caption, width="third")


def _whiskers(name: str, title: str, lines: list[tuple[str, str, Dot]], width: Literal["third", "whole"]) -> Plot:
    figure = whiskers(lines, lambda v: words.signed(v, 4), 0.0, "native")
    figure.update_xaxes(title="added loss (nats a token)")
    return Plot(name, title, figure, "Bars: 95 % bootstrap intervals over passages.", width)


def _passages(records: pd.DataFrame) -> Plot:
    """Loss added by zeroed states (x) against loss added by reconstructed ones (y), one dot a passage."""
    figure = canvas()
    kept = records.iloc[thinned(len(records))]
    x, y = (((kept[f"nll_{c}"] - kept.nll_native) / kept.tokens).to_numpy() for c in ("zero", "reconstruction"))
    says = "passage %{customdata}<br>zeroed %{x:.4f}, reconstructed %{y:.4f}"
    marks(figure, x, y, "atom", 7, 0.7, says, showlegend=False, customdata=[int(n) for n in kept.passage])
    reach = float(max(abs(x).max(), abs(y).max())) * 1.1 or 1.0
    diagonal(figure, -reach, reach)
    level(figure, 0.0)
    figure.update_xaxes(title="zeroed states (nats a token)", range=[-reach, reach])
    figure.update_yaxes(title="reconstruction", range=[-reach, reach])
    caption = drawn_of(len(kept), len(records), "passages") + " Dashed: everything recovered; dotted: nothing."
    return Plot("passages", "Loss added, by passage", figure, caption, width="third")
