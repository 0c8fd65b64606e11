"""How it is said and drawn."""

from __future__ import annotations

from writesae.evals.amplification.config import AmplificationConfig
from writesae.evals.amplification.summary import Row, Summary
from writesae.evals.common.result import Result
from writesae.show import words
from writesae.show.doses import Curve, Point, by_dose
from writesae.show.parts import Panel, Plot, Table

CONDITIONS = {"class": ("the class\u2019s features", "var(--atom)"), "other_atom": ("other features", "var(--random)")}


def finding(result: Result[AmplificationConfig, Summary]) -> str:
    """The dose that changes most, against the unedited continuations and the other features."""
    summary, own = result.summary, [r for r in result.summary.rows if r.condition == "class"]
    best = min(own, key=lambda r: (r.p, -abs(r.change)))
    other = next(r for r in summary.rows if (r.timing, r.dose) == (best.timing, best.dose) and r is not best)
    differ = sum(r.p < 0.05 and r.p_random < 0.05 for r in own)
    return (
        f"Unedited, {words.count(best.n)} continuations hold {words.decimals(summary.native)} tokens of the class "
        f"each. With its features amplified {words.plain(best.dose)} times ({words.timing(best.timing)}): "
        f"{_said(best)}; with as many other features: {_said(other)}. {differ} of "
        f"{words.plural(len(own), 'setting')} differ from both (p < 0.05, Holm-corrected)."
    )


def _said(row: Row) -> str:
    return f"{words.signed(row.change, 2)} ({words.span(row.interval, 2)}, p {words.quantity(row.p)})"


def panel(result: Result[AmplificationConfig, Summary]) -> Panel:
    """Change by dose, one figure a timing."""
    summary, plots = result.summary, []
    for timing in result.config.timings:
        curves = [
            Curve(name, colour, [
                Point(r.dose, r.change, r.interval) for r in summary.rows
                if (r.condition, r.timing) == (condition, timing)
            ])
            for condition, (name, colour) in CONDITIONS.items()
        ]  # fmt: skip
        figure = by_dose(curves, "factor of the coefficients", "more than unedited", lambda v: words.signed(v, 2), 0.0)
        title = f"Tokens of the class in {result.config.new_tokens} new ones, {words.timing(timing)}"
        plots.append(Plot(f"dose-{timing}", title, figure, "Bars: 95 % bootstrap intervals over prompts."))
    head = (
        "features", "timing", "factor", "said", "more than unedited", "95 % interval", "texts changed", "d", "p",
        "p against others",
    )  # fmt: skip
    table = [
        (
            CONDITIONS[r.condition][0], words.timing(r.timing), words.plain(r.dose), words.decimals(r.mean),
            words.signed(r.change, 2), words.span(r.interval, 2), words.percent(r.changed), words.decimals(r.cohens_d),
            words.quantity(r.p), words.quantity(r.p_random),
        )
        for r in summary.rows
    ]  # fmt: skip
    config = result.config
    how = "greedy" if config.temperature == 0 else f"sampled at temperature {words.plain(config.temperature)}"
    chosen = "; ".join(f"{site} {', '.join(map(str, features))}" for site, features in summary.features.items())
    note = (
        f"The class: tokens that match {words.visible(config.pattern)}. Its features, found on {config.found_on} other "
        f"passages: {chosen}. {config.new_tokens} {how} tokens after prompts of {config.prompt}. d: paired mean "
        "difference over its standard deviation. p: signed ranks, Holm-corrected over the table."
    )
    return Panel(tuple(plots), Table(head, table), note)
