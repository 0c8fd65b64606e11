"""How many tokens of the class are said, against the unedited continuations of the same prompts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np
import pandas as pd

from writesae.evals.amplification import AmplificationConfig
from writesae.evals.common.cells import AtTiming, Cells, Column, cells, table_of
from writesae.evals.common.change import Change, change_of
from writesae.evals.common.result import Result
from writesae.evals.common.stats import holm, moved
from writesae.show import words
from writesae.show.doses import Point, by_dose, curves_of
from writesae.show.parts import Panel, Plot

Condition = Literal["class", "other_atom"]
CONDITIONS = {"class": ("the class\u2019s features", "atom"), "other_atom": ("other features", "random")}
"""Name and colour."""

COLUMNS = {
    "passage": "passage whose beginning is the prompt",
    "condition": "native: unedited; class: the class\u2019s features; other_atom: as many other ones that fire",
    "timing": "after_token or at_token; empty for the unedited one",
    "dose": "factor of the coefficients; 1 for the unedited one",
    "count": "tokens of the class among the new ones",
    "text": "the new tokens\u2019 text",
}

MORE = {
    "features": {
        "site": "head",
        "feature": "feature that is amplified there",
        "condition": "class or other_atom",
        "inside": "share of the class\u2019s tokens at which it fires",
        "outside": "share of the other tokens",
    }
}


@dataclass(frozen=True)
class Cell:
    """One set of features, timing and dose, against the unedited continuations of the same prompts."""

    condition: Annotated[Condition, Column("features", lambda condition: CONDITIONS[condition][0])]
    timing: AtTiming
    dose: Annotated[float, Column("factor", words.plain)]
    mean: Annotated[float, Column("said", words.decimals)]
    """Tokens of the class in a continuation."""
    change: Annotated[
        Change,
        Column("more than unedited", lambda change: words.signed(change.mean, 2)),
        Column("95 % interval", lambda change: words.span(change.interval, 2)),
        Column("p", lambda change: words.quantity(change.p)),
    ]
    """Of it, to the unedited continuation of the same prompt; p is Holm-corrected over all tests of the table."""
    p_random: Annotated[float, Column("p against others", words.quantity)]
    """The same against the other features at the same dose; NaN for those themselves."""
    changed: Annotated[float, Column("texts changed", words.percent)]
    """Share of the continuations that say anything else than the unedited one."""
    cohens_d: Annotated[float, Column("d", words.decimals)]
    """Paired: mean difference over its standard deviation; 0 where nothing changed."""


@dataclass(frozen=True)
class Summary(Cells[Cell]):
    """The features by head, and the table."""

    features: dict[str, tuple[int, ...]]
    other_features: dict[str, tuple[int, ...]]
    native: float
    """Mean number of class tokens in the unedited continuations."""


def summarise(tables: Mapping[str, pd.DataFrame], config: AmplificationConfig) -> Summary:
    """The summary of the records."""
    records, features = tables["records"].sort_values("passage", kind="stable"), tables["features"]
    unedited, edited = records[records.condition == "native"], records[records.condition != "native"]
    native, passage = unedited["count"].to_numpy(float), unedited.passage.to_numpy()
    parts = list(cells(edited, ("condition", "timing", "dose")))
    counts = {tuple(how.values()): part["count"].to_numpy(float) for how, part in parts}
    changes = [change_of(x - native, passage, config.seed) for x in counts.values()]
    against = [
        moved(x - counts["other_atom", *key[1:]], passage) if key[0] == "class" else float("nan")
        for key, x in counts.items()
    ]
    p = holm([*(change.p for change in changes), *against])
    found = []
    for i, ((how, part), x) in enumerate(zip(parts, counts.values(), strict=True)):
        spread = float((x - native).std(ddof=1)) if len(x) > 1 else 0.0
        found.append(
            Cell(
                **how, mean=float(x.mean()), change=replace(changes[i], p=p[i]), p_random=p[len(parts) + i],
                changed=float((part.text.to_numpy() != unedited.text.to_numpy()).mean()),
                cohens_d=changes[i].mean / spread if spread else 0.0,
            )
        )  # fmt: skip
    own, others = (_by_site(features, condition) for condition in ("class", "other_atom"))
    return Summary(tuple(found), own, others, float(np.mean(native)))


def _by_site(features: pd.DataFrame, condition: str) -> dict[str, tuple[int, ...]]:
    chosen = features[features.condition == condition]
    return {str(site): tuple(int(f) for f in part.feature) for site, part in chosen.groupby("site", sort=False)}


def finding(result: Result[AmplificationConfig, Summary]) -> str:
    """The dose that changes most, against the unedited continuations and the other features."""
    summary, own = result.summary, result.summary.where(condition="class")
    best = min(own, key=lambda r: (r.change.p, -abs(r.change.mean)))
    other = summary.cell(condition="other_atom", timing=best.timing, dose=best.dose)
    differ = sum(r.change.p < 0.05 and r.p_random < 0.05 for r in own)
    states = any(one.target == "state" for one in result.provenance.dictionaries)
    read = ", read by increment," * (states and result.config.reading == "increment")
    return (
        f"Unedited, {words.count(best.change.n)} continuations hold {words.decimals(summary.native)} tokens of the "
        f"class each. With its features{read} amplified {words.plain(best.dose)} times ({words.timing(best.timing)}): "
        f"{best.change.said(2)}; with as many other features: {other.change.said(2)}. {differ} of "
        f"{words.plural(len(own), 'setting')} differ from both (p < 0.05, Holm-corrected)."
    )


def panel(result: Result[AmplificationConfig, Summary]) -> Panel:
    """Change by dose, one figure a timing."""
    summary, plots = result.summary, []
    for rows in summary.alike("timing"):
        curves = curves_of(rows, "condition", CONDITIONS, lambda r: Point(r.dose, r.change.mean, r.change.interval))
        figure = by_dose(curves, "factor of the coefficients", "more than unedited", lambda v: words.signed(v, 2), 0.0)
        title = f"Tokens of the class in {result.config.new_tokens} new ones, {words.timing(rows[0].timing)}"
        plots.append(Plot(f"dose-{rows[0].timing}", title, figure, "Bars: 95 % bootstrap intervals over prompts."))
    config = result.config
    how = "greedy" if config.temperature == 0 else f"sampled at temperature {words.plain(config.temperature)}"
    chosen = "; ".join(f"{site} {', '.join(map(str, features))}" for site, features in summary.features.items())
    note = (
        f"The class: tokens that match {words.visible(config.pattern)}. Its features, found on {config.found_on} other "
        f"passages: {chosen}. {config.new_tokens} {how} tokens after prompts of {config.prompt}. d: paired mean "
        "difference over its standard deviation. p: signed ranks, Holm-corrected over the table."
    )
    return Panel(tuple(plots), table_of(Cell, summary.cells), note)
