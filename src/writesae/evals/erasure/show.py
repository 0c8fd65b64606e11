"""How it is said and drawn."""

from __future__ import annotations

from writesae.evals.common.floor import too_small
from writesae.evals.common.result import Result
from writesae.evals.erasure.config import ErasureConfig
from writesae.evals.erasure.summary import Row, Summary
from writesae.show import words
from writesae.show.doses import Curve, Point, by_dose
from writesae.show.parts import Panel, Plot, Table

CONDITIONS = {"delete": ("taken out", "var(--delete)"), "elsewhere": ("added elsewhere", "var(--random)")}


def finding(result: Result[ErasureConfig, Summary]) -> str:
    """What one dose does to the first feature's token, at firings and elsewhere."""
    rows, config = result.summary.rows, result.config
    dose = min(config.doses, key=lambda d: abs(d - 1.0))
    said = []
    for timing in config.timings:
        cell = [
            r for r in rows
            if (r.feature, r.timing, r.native_write, r.dose) == (rows[0].feature, timing, config.native_writes[0], dose)
        ]  # fmt: skip
        each = "; ".join(_said(r) for r in cell)
        token = words.visible_token(cell[0].text)
        said.append(f"{words.timing(timing)}, token \u201c{token}\u201d: {each}")
    return (
        f"Feature {rows[0].feature}, its write ({config.native_writes[0]} form) at {words.plain(dose)} times its size, "
        f"change of the token\u2019s log probability in nats. {'. '.join(s[:1].upper() + s[1:] for s in said)}."
    )


def _said(row: Row) -> str:
    name = CONDITIONS[row.condition][0]
    if too_small(row.above):
        return f"{name} too small to decide ({words.percent(row.above)} of {row.n} changes above rounding)"
    return (
        f"{name} {words.signed(row.mean, 4)} ({words.span(row.interval, 4)}; {words.count(row.n)} places in "
        f"{words.plural(row.passages, 'passage')}, p {words.quantity(row.p)})"
    )


def panel(result: Result[ErasureConfig, Summary]) -> Panel:
    """Change by dose, one figure a feature, timing and native write."""
    rows = result.summary.rows
    cells = dict.fromkeys((r.feature, r.token, r.timing, r.native_write) for r in rows)
    plots = []
    for number, cell in enumerate(cells):
        here = [r for r in rows if (r.feature, r.token, r.timing, r.native_write) == cell]
        curves = [
            Curve(name, colour, [Point(r.dose, r.mean, r.interval) for r in here if r.condition == condition])
            for condition, (name, colour) in CONDITIONS.items()
        ]
        figure = by_dose(curves, "dose (times the write)", "change of log probability (nats)", words.signed, 0.0)
        title = (
            f"Feature {cell[0]}, token {words.visible_token(here[0].text)}, {words.timing(cell[2])}, {cell[3]} write"
        )
        plots.append(Plot(f"dose-{number}", title, figure, "Bars: 95 % bootstrap intervals over passages."))
    head = (
        "feature", "token", "timing", "native write", "what", "dose", "places", "passages", "mean (nats)",
        "95 % interval", "median", "above rounding", "p",
    )  # fmt: skip
    table = [
        (
            str(r.feature), words.visible_token(r.text), words.timing(r.timing), r.native_write,
            CONDITIONS[r.condition][0], f"{words.plain(r.dose)}\u00d7", words.count(r.n), words.count(r.passages),
            words.signed(r.mean, 4), words.span(r.interval, 4), words.signed(r.median, 4), words.percent(r.above),
            words.quantity(r.p),
        )
        for r in rows
    ]  # fmt: skip
    followed = {
        "closed": "the one whose unembedding the atom points at through the head",
        "measured": "the one that loses most on one half of the passages, followed on the other half",
    }[result.config.follow]
    note = (
        f"The followed token is {'given' if result.config.token is not None else followed}. Added elsewhere: the very "
        "writes of the firings, each at a place where the feature does not fire, so that the doses are equal. p: "
        "signed ranks of the passages\u2019 means against no change, Holm-corrected over the table."
    )
    return Panel(tuple(plots), Table(head, table), note)
