"""How it is said and drawn."""

from __future__ import annotations

from collections import Counter

from writesae.evals.common.result import Result
from writesae.evals.proper_nouns.config import ProperNounsConfig
from writesae.evals.proper_nouns.summary import Summary
from writesae.show import words
from writesae.show.doses import Point, by_direction, by_dose
from writesae.show.parts import Panel, Plot, Table


def finding(result: Result[ProperNounsConfig, Summary]) -> str:
    """The verdicts on names and on words, and the largest difference."""
    said = []
    for kind in ("name", "word"):
        rows = [r for r in result.summary.rows if r.targets == kind]
        meant = [r for r in rows if r.direction != "random"] or rows
        verdicts = Counter(r.verdict for r in meant)
        most = max(meant, key=lambda r: abs(r.rate - r.native))
        each = ", ".join(f"{verdicts[v]} {v}" for v in ("effect", "null", "undecided") if verdicts[v])
        said.append(
            f"{kind}s: {each}; the largest change is {_points(most.rate - most.native)} "
            f"({_span(most.difference)}) points from {words.percent(most.native)} ({most.direction}, "
            f"{words.plain(most.magnitude)} native writes)"
        )
    return (
        f"Written at {result.provenance.site} before {words.count(result.config.contexts)} names and as many words, "
        "the share of continuations that hold them changes so (a null excludes "
        f"{words.plain(100 * result.config.margin)} points): {'; '.join(said)}."
    )


def panel(result: Result[ProperNounsConfig, Summary]) -> Panel:
    """Change of inclusion and lift by dose, for names and for words."""
    summary, config, plots = result.summary, result.config, list[Plot]()
    cells = dict.fromkeys((r.targets, r.timing, r.native_write) for r in summary.rows)
    for number, cell in enumerate(cells):
        rows = [r for r in summary.rows if (r.targets, r.timing, r.native_write) == cell]
        title = f"{cell[0].capitalize()}s, {words.timing(cell[1])}"
        title += f", {cell[2]} write" if len(config.native_writes) > 1 else ""
        x = "norm (native writes)"
        more = by_direction((r.direction, Point(r.magnitude, r.rate - r.native, r.difference)) for r in rows)
        moved = by_direction((r.direction, Point(r.magnitude, r.lift, r.lift_interval)) for r in rows)
        change = by_dose(more, x, "change of inclusion", words.percent, 0.0, share=True)
        lift = by_dose(moved, x, "first-step lift (nats)", words.signed, 0.0)
        plots.append(Plot(f"change-{number}", f"{title}: said more often", change, "Below 0 the direction is erased."))
        plots.append(Plot(f"lift-{number}", f"{title}: lift", lift, "Bars: 95 % bootstrap intervals over passages."))
    head = (
        "target", "direction", "timing", "native write", "dose", "unedited", "edited", "difference (points)",
        "95 % interval", "p", "p none", "verdict", "lift (nats)", "95 % interval", "above rounding", "p lift",
        "p against words",
    )  # fmt: skip
    table = [
        (
            r.targets, r.direction, words.timing(r.timing), r.native_write, f"{words.plain(r.magnitude)}\u00d7",
            words.percent(r.native), words.percent(r.rate), _points(r.rate - r.native), _span(r.difference),
            words.quantity(r.p), words.quantity(r.p_equivalent), r.verdict, words.signed(r.lift),
            words.span(r.lift_interval), words.percent(r.above), words.quantity(r.p_lift), words.quantity(r.p_words),
        )
        for r in summary.rows
    ]  # fmt: skip
    note = (
        f"A name is a capitalised token whose lower-case spelling is no token ({words.count(summary.names)} of them), "
        f"a word a lower-case one whose capitalised spelling is none ({words.count(summary.words)}). p: McNemar\u2019s "
        "exact test; p none: two one-sided tests that inclusion differs by less than "
        f"{words.plain(100 * config.margin)} points; p against words: Mann-Whitney test of the lift; all "
        "Holm-corrected over the table."
    )
    return Panel(tuple(plots), Table(head, table), note)


def _points(share: float) -> str:
    return words.signed(100 * share, 1)


def _span(bounds: tuple[float, float]) -> str:
    return words.span((100 * bounds[0], 100 * bounds[1]), 1)
