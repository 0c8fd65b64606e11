"""What the records say: in numbers, in words, in figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated

import numpy as np
import pandas as pd

from writesae.evals.common.cells import Column, table_of
from writesae.evals.common.conditions import common
from writesae.evals.common.result import Result
from writesae.evals.common.stats import gini
from writesae.evals.quality import QualityConfig
from writesae.show import words
from writesae.show.figures import Floats, bars, canvas, curve, diagonal, histogram, upright
from writesae.show.parts import Panel, Plot, Table

COLUMNS = common("feature") | {
    "firings": "tokens at which it fires",
    "frequency": "the same as a share of all tokens",
    "coefficient": "mean coefficient where it fires",
    "largest": "largest coefficient",
}
MORE = {
    "passages": {
        "passage": "number of the passage",
        "tokens": "tokens in it",
        "entries": "numbers in its matrices: tokens times d_k times d_v",
        "active": "firings",
        "error": "squared error of the reconstruction, summed over entries",
        "norm": "squared entries, summed",
        "variance": "squared distance from the mean matrix of all passages, summed",
    }
}


@dataclass(frozen=True)
class Summary:
    """Quality on one text."""

    tokens: int
    explained_variance: Annotated[float, Column("variance explained", words.percent)]
    """`1 - sum |X - X^|^2 / sum |X - mean X|^2`."""
    mse: Annotated[float, Column("mean squared error an entry", words.quantity)]
    """Mean squared error an entry."""
    l0: Annotated[float, Column("L0, active features a token", lambda mean: words.plain(mean, 2))]
    """Mean active features a token."""
    alive: Annotated[int, Column("alive", words.count)]
    dead: Annotated[int, Column("dead, never fire", words.count)]
    """Features that never fire."""
    dense: Annotated[int, Column("dense, at more than {} of tokens", words.count)]
    """Features that fire at too many tokens."""
    gini: Annotated[float, Column("Gini of the alive features\u2019 firings", lambda gini: words.plain(gini, 3))]
    """Inequality of the alive features' firing counts."""
    histogram: tuple[int, ...]
    """Alive features by frequency, one count a bin of the configuration's edges."""


def summarise(tables: Mapping[str, pd.DataFrame], config: QualityConfig) -> Summary:
    """The summary of the two tables."""
    firings, passages = tables["records"].firings.to_numpy(), tables["passages"]
    tokens, variance = int(passages.tokens.sum()), float(passages.variance.sum())
    frequency, alive = firings / tokens, firings > 0
    return Summary(
        tokens=tokens,
        explained_variance=1 - float(passages.error.sum()) / variance if variance > 0 else float("nan"),
        mse=float(passages.error.sum() / passages.entries.sum()),
        l0=float(passages.active.sum() / tokens),
        alive=int(alive.sum()),
        dead=int((~alive).sum()),
        dense=int((frequency > config.dense).sum()),
        gini=gini(firings[alive]),
        histogram=tuple(int(n) for n in np.histogram(frequency[alive], config.edges)[0]),
    )


def finding(result: Result[QualityConfig, Summary]) -> str:
    """What is explained, with how many features."""
    summary = result.summary
    return (
        f"{words.percent(summary.explained_variance)} of the variance is explained with {words.plain(summary.l0, 2)} "
        f"of {words.count(len(result.records))} features active a token (n = {words.count(summary.tokens)} tokens, "
        f"{words.plural(len(result.more['passages']), 'passage')}; {_middle(_by_passage(result))}); "
        f"{words.count(summary.dead)} features never fire, {words.count(summary.dense)} are dense."
    )


def panel(result: Result[QualityConfig, Summary]) -> Panel:
    """Histogram of firing frequencies, how unequal they are, and the variance explained in each passage."""
    summary, dense = result.summary, result.config.dense
    firings = result.records.firings.to_numpy(dtype=float)
    plots = (
        _frequencies(firings / summary.tokens, dense, summary),
        _lorenz(firings[firings > 0], summary),
        _explained(_by_passage(result), summary),
    )
    table = table_of(Summary, [summary])
    rows = [
        (head.format(words.percent(dense, 0)), value) for head, value in zip(table.head, table.rows[0], strict=True)
    ]
    return Panel(plots, Table(("measure", "value"), rows))


def _by_passage(result: Result[QualityConfig, Summary]) -> Floats:
    """Variance explained within each passage that varies."""
    passages = result.more["passages"]
    error, variance = passages.error.to_numpy(), passages.variance.to_numpy()
    explained: Floats = 1 - error[variance > 0] / variance[variance > 0]
    return explained


def _middle(explained: Floats) -> str:
    if not len(explained):
        return "no passage varies"
    low, high = np.quantile(explained, [0.1, 0.9])
    return f"within a passage {words.percent(float(low))} to {words.percent(float(high))}, 10th to 90th percentile"


def _frequencies(frequency: Floats, dense: float, summary: Summary) -> Plot:
    """Alive features by the logarithm of how often they fire."""
    figure = canvas()
    logs = np.log10(frequency[frequency > 0])
    low = float(np.floor(4 * logs.min()) / 4) if len(logs) else -6.0
    edges = np.linspace(low, 0, round(-low * 8) + 1) if low < 0 else np.linspace(-1, 0, 9)
    counts = np.histogram(logs, edges)[0]
    texts = [f"{words.quantity(10 ** float(a))} to {words.quantity(10 ** float(b))}" for a, b in pairwise(edges)]
    says, more = "%{text} of tokens: %{y} features", {"showlegend": False, "marker_opacity": 0.75}
    bars(figure, counts.tolist(), edges, texts, "atom", says, **more)
    upright(figure, float(np.log10(dense)), "dense")
    decades = list(range(int(np.floor(low)), 1))
    figure.update_xaxes(
        title="share of tokens",
        tickvals=decades,
        ticktext=[words.power(10.0**d) for d in decades],
        range=[low - 0.06, 0.06],
    )
    figure.update_yaxes(title="features", rangemode="tozero")
    caption = f"{words.count(summary.alive)} alive features; {words.count(summary.dead)} that never fire are not drawn."
    return Plot("frequencies", "How often features fire", figure, caption, width="third")


def _lorenz(firings: Floats, summary: Summary) -> Plot:
    """Share of all firings that the rarest features have together."""
    figure = canvas()
    ordered = np.sort(firings)
    share = np.concatenate([[0.0], np.cumsum(ordered) / ordered.sum()]) if len(ordered) else np.zeros(1)
    keep = np.unique(np.linspace(0, len(ordered), min(len(ordered) + 1, 300)).round().astype(int))
    says = "the rarest %{x:.0%} of features<br>have %{y:.1%} of firings"
    x = keep / max(len(ordered), 1)
    curve(figure, x, share[keep], "atom", 2.25, says, fill="tozeroy", fillcolor="var(--sunken)", showlegend=False)
    diagonal(figure, 0, 1)
    figure.update_xaxes(title="features, rarest first", tickformat=".0%", range=[0, 1.02], dtick=0.25)
    figure.update_yaxes(title="share of all firings", tickformat=".0%", range=[0, 1.02], dtick=0.25)
    return Plot(
        "lorenz",
        "How unequally they fire",
        figure,
        f"Gini {words.plain(summary.gini, 3)}: 0 where all fire equally often (dotted).",
        width="third",
    )


def _explained(explained: Floats, summary: Summary) -> Plot:
    figure = canvas()
    if len(explained):
        low, high = float(explained.min()), float(explained.max())
        edges = np.linspace(low, high if high > low else low + 0.01, min(30, max(8, len(explained) // 4)) + 1)
        histogram(figure, explained, edges, "passages", "atom", "explained", 0.75)
    if words.finite(summary.explained_variance):
        upright(figure, summary.explained_variance, "all")
    figure.update_layout(showlegend=False)
    figure.update_xaxes(title="variance explained in a passage", tickformat=".0%")
    figure.update_yaxes(title="passages", rangemode="tozero")
    return Plot("explained", "Variance explained", figure, f"{words.plural(len(explained), 'passage')}.", width="third")
