"""How it is said and drawn."""

from __future__ import annotations

from writesae.evals.common.floor import too_small
from writesae.evals.common.result import Result
from writesae.evals.installs.config import InstallsConfig
from writesae.evals.installs.summary import Row, Summary
from writesae.show import words
from writesae.show.doses import Point, by_direction, by_dose
from writesae.show.parts import Panel, Plot, Table


def finding(result: Result[InstallsConfig, Summary]) -> str:
    """The setting that installs best, and how many differ from the unedited continuations."""
    meant = [r for r in result.summary.rows if r.direction != "random"] or list(result.summary.rows)
    best = min(meant, key=lambda r: (r.p_native, -abs(r.said.value - r.native), -abs(r.lift)))
    random = "" if not words.finite(best.random) else f", {words.percent(best.random)} with random directions"
    where = result.provenance.site
    said = (
        f"Written at {where} ({_setting(best)}), {words.percent(best.said.value)} "
        f"({words.interval(best.said.bounds)}) of {words.count(best.said.n)} continuations hold the target, "
        f"{words.percent(best.native)} unedited{random} (p {words.quantity(best.p_native)}, Holm-corrected); "
    )
    differ = sum(r.p_native < 0.05 for r in meant)
    said += f"{differ} of {words.plural(len(meant), 'setting')} differ from the unedited ones. "
    lift = f"{words.signed(best.lift)} nats ({words.span(best.lift_interval)})"
    if too_small(best.above):
        return said + (
            f"Its first-step lift is too small to decide: {words.percent(best.above)} of the prompts are moved by more "
            "than rounding."
        )
    return said + f"Its first-step lift is {lift}."


def panel(result: Result[InstallsConfig, Summary]) -> Panel:
    """Inclusion and lift by dose."""
    summary = result.summary
    plots = []
    cells = dict.fromkeys((r.timing, r.native_write, r.last, r.ranks) for r in summary.rows)
    for number, cell in enumerate(cells):
        rows = [r for r in summary.rows if (r.timing, r.native_write, r.last, r.ranks) == cell]
        title = f"{words.timing(cell[0])}, last {cell[2]} tokens, {_ranks(cell[3])}"
        title += f", {cell[1]} write" if len(result.config.native_writes) > 1 else ""
        rate = [(r.direction, Point(r.magnitude, r.said.value, r.said.bounds)) for r in rows]
        lift = [(r.direction, Point(r.magnitude, r.lift, r.lift_interval)) for r in rows]
        said = by_dose(
            by_direction(rate), "norm (native writes)", "target is said", words.percent, rows[0].native, share=True
        )
        plots.append(Plot(f"said-{number}", f"Said: {title}", said, "Dashed: unedited."))
        first = by_dose(by_direction(lift), "norm (native writes)", "first-step lift (nats)", words.signed, 0.0)
        plots.append(Plot(f"lift-{number}", f"Lift: {title}", first, "Bars: 95 % bootstrap intervals over prompts."))
    head = (
        "direction", "timing", "native write", "last tokens", "target\u2019s rank", "dose", "said", "95 % interval",
        "unedited", "random", "lift (nats)", "95 % interval", "above rounding", "saturated", "p unedited", "p random",
        "p lift",
    )  # fmt: skip
    table = [
        (
            r.direction, words.timing(r.timing), r.native_write, words.count(r.last), _ranks(r.ranks),
            f"{words.plain(r.magnitude)}\u00d7", words.percent(r.said.value), words.interval(r.said.bounds),
            words.percent(r.native), words.percent(r.random), words.signed(r.lift), words.span(r.lift_interval),
            words.percent(r.above), words.percent(r.saturated), words.quantity(r.p_native),
            words.quantity(r.p_random), words.quantity(r.p_lift),
        )
        for r in summary.rows
    ]  # fmt: skip
    note = (
        f"{words.count(result.config.new_tokens)} greedy tokens a prompt. Random: directions of the same norm. "
        "Lift: change of the target\u2019s log probability as the first new token. Saturated: at least half of the new "
        "tokens are the target. p: exact sign test over prompts, and signed ranks of the lift, Holm-corrected over the "
        "table. Under after token a write at the last position is first read one token later."
    )
    return Panel(tuple(plots), Table(head, table), note)


def _setting(row: Row) -> str:
    return (
        f"{row.direction} direction, {words.timing(row.timing)}, last {row.last} tokens, "
        f"{words.plain(row.magnitude)} native writes, {_ranks(row.ranks)}"
    )


def _ranks(ranks: tuple[int, int]) -> str:
    return f"ranks {ranks[0]} to {ranks[1] - 1}"
