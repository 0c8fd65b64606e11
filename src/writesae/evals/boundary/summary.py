"""What the records say: in numbers, in words, in figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import pandas as pd

from writesae.evals.boundary import BoundaryConfig
from writesae.evals.common.cells import Column, table_of
from writesae.evals.common.conditions import common
from writesae.evals.common.result import Result
from writesae.show import words
from writesae.show.figures import canvas, curve, drawn_of, level, lines_of, log_ticks, marks, thinned
from writesae.show.parts import Panel, Plot

COLUMNS = common("feature") | {
    "firings": "tokens at which it fires",
    "firings_inside": "of these, tokens of the class",
    "auroc": "separation, NaN where it never fires",
    "p_raw": "p of signed ranks over passages, of mean ranks at tokens of the class minus at others; NaN as above",
    "p": "the same, Holm-corrected over the features that fire; NaN as above",
    "inside": "tokens of the class, the same in every row",
    "outside": "all other tokens",
}


@dataclass(frozen=True)
class Feature:
    """One feature."""

    feature: Annotated[int, Column("feature", "feature {}".format)]
    auroc: Annotated[float, Column("AUROC", lambda auroc: words.decimals(auroc, 3))]
    p: Annotated[float, Column("p (Holm)", words.quantity)]
    inside: Annotated[float, Column("fires at tokens of the class", words.percent)]
    """Share of the class's tokens at which it fires."""
    outside: Annotated[float, Column("fires at others", words.percent)]
    """Share of the other tokens."""


@dataclass(frozen=True)
class Summary:
    """Over the features that fire."""

    inside: int
    """Tokens of the class."""
    outside: int
    fired: int
    """Features that fire."""
    separating: int
    """Features that fire more within the class, significantly."""
    best: tuple[Feature, ...]
    """The most separating ones first."""


def summarise(tables: Mapping[str, pd.DataFrame], config: BoundaryConfig) -> Summary:
    """The summary of the records."""
    records = tables["records"]
    fired = records[records.p.notna()]
    inside, outside = int(records.inside.iloc[0]), int(records.outside.iloc[0])
    best = fired.sort_values(["auroc", "feature"], ascending=[False, True]).head(config.top)
    return Summary(
        inside, outside, len(fired), int(((fired.auroc > 0.5) & (fired.p < config.alpha)).sum()),
        tuple(
            Feature(int(f), float(a), float(p), float(n) / inside, float(m - n) / outside)
            for f, a, p, n, m in zip(best.feature, best.auroc, best.p, best.firings_inside, best.firings, strict=True)
        ),
    )  # fmt: skip


def finding(result: Result[BoundaryConfig, Summary]) -> str:
    """How many features separate, and how well the best does."""
    summary, alpha = result.summary, result.config.alpha
    states = result.provenance.dictionaries[0].target == "state"
    read = ", read by increment," * (states and result.config.reading == "increment")
    said = (
        f"{words.count(summary.separating)} of {words.count(summary.fired)} features{read} fire more on tokens of the "
        f"class (Holm-corrected p < {words.plain(alpha)}; {words.count(summary.inside)} tokens of the class, "
        f"{words.count(summary.outside)} others)"
    )
    if summary.best:
        best = summary.best[0]
        said += f"; the best, feature {best.feature}, separates them with an AUROC of {words.decimals(best.auroc, 3)}"
    return said + "."


def panel(result: Result[BoundaryConfig, Summary]) -> Panel:
    """Separation against how often a feature fires, and where the best ones fire."""
    records, summary = result.records, result.summary
    note = (
        f"A token is of the class where the pattern {words.visible(result.config.pattern)} is found in its text. "
        "AUROC: the probability that the coefficient at a random token of the class exceeds that at a random other "
        "one; one half says nothing. p: signed ranks over the passages that hold tokens of both kinds."
    )
    plots = (_separation(records[records.auroc.notna()], result.config.alpha), _where(summary))
    return Panel(plots, table_of(Feature, summary.best), note)


def _separation(fired: pd.DataFrame, alpha: float) -> Plot:
    figure = canvas(390)
    chosen = (fired.p < alpha) & (fired.auroc > 0.5)
    drawn = 0
    groups = ((fired[~chosen], "not significant, or fires less", "random", 5), (fired[chosen], "separates", "atom", 8))
    for rows, name, colour, size in groups:
        kept = rows.iloc[thinned(len(rows))]
        drawn += len(kept)
        says = "feature %{customdata[0]}<br>AUROC %{y:.3f}, %{x} firings, p %{customdata[1]}"
        data = [[int(f), words.quantity(float(p))] for f, p in zip(kept.feature, kept.p, strict=True)]
        marks(figure, kept.firings, kept.auroc, colour, size, 0.7, says, name=name, customdata=data)
    level(figure, 0.5)
    most = float(fired.firings.max()) if len(fired) else 1.0
    figure.update_xaxes(title="firings", **log_ticks(0.8, max(most, 2.0) * 1.3))
    figure.update_yaxes(title="AUROC")
    return Plot("separation", "Every feature", figure, drawn_of(drawn, len(fired), "features") + " Dashed: one half.")


def _where(summary: Summary) -> Plot:
    """For each of the best features, the share of tokens of the class and of others at which it fires."""
    figure = canvas()
    lines_of(figure, [f"feature {f.feature}" for f in summary.best] or ["none"])
    rates = [(f.inside, f.outside) for f in summary.best]
    for i, (inside, outside) in enumerate(rates):
        curve(figure, [outside, inside], [i, i], "rule-strong", 3, "", hoverinfo="skip", showlegend=False)
    for side, name, colour in ((0, "tokens of the class", "atom"), (1, "other tokens", "random")):
        says = f"fires at %{{x:.1%}} of {name}"
        marks(figure, [rate[side] for rate in rates], range(len(rates)), colour, 10, 1, says, name=name)
    top = max((value for rate in rates for value in rate), default=1.0)
    figure.update_xaxes(title="share of tokens at which it fires", tickformat=".0%", range=[-0.02 * top, top * 1.05])
    figure.update_layout(height=390)
    return Plot("where", "Where the best ones fire", figure)
