"""How often targets are said, against the unedited continuations and against random directions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from writesae.evals.common.cells import Along, AtTiming, Cells, Column, OfWrite, cells, shared, table_of
from writesae.evals.common.change import Change, change_of, changed, corrected
from writesae.evals.common.conditions import common
from writesae.evals.common.result import Result
from writesae.evals.common.stats import Share, holm, share, sign_test
from writesae.evals.installs import InstallsConfig
from writesae.show import words
from writesae.show.doses import DIRECTIONS, Point, by_dose, curves_of
from writesae.show.parts import Panel, Plot

SATURATED = 0.5

TRIALS = common("timing") | {
    "passage": "prompt",
    "target": "the token that is to be said",
    "rank": "its native rank as the next token, counted from 0",
    "direction": "what is written: closed, exact or random",
    "native_write": "the native write that the magnitude counts in: delta or value",
    "last": "last tokens that are written at",
    "magnitude": "Frobenius norm of each write, in native writes",
    "included": "whether the edited continuation holds the target",
    "native": "whether the unedited one does",
    "lift": "change of the target's log probability as the first new token, nats",
    "floor": "largest difference of any log probability between two native runs: rounding, nats",
    "share": "share of the new tokens that are the target",
}
"""What a trial of installing says, here and in `proper_nouns`."""

COLUMNS = TRIALS | {
    "which": "which of the prompt's targets of this class",
    "rank_low": "native ranks from which the target was drawn",
    "rank_high": "the same, excluded",
}
BY = ("direction", "timing", "native_write", "magnitude", "last", "ranks")


@dataclass(frozen=True)
class Cell:
    """One direction, timing, native write, magnitude, number of last tokens and rank class."""

    direction: Along
    timing: AtTiming
    native_write: OfWrite
    last: Annotated[int, Column("last tokens", words.count)]
    ranks: Annotated[tuple[int, int], Column("target\u2019s rank", lambda r: _ranks(r))]
    magnitude: Annotated[float, Column("dose", words.times)]
    said: Annotated[Share, shared("said")]
    """Continuations that contain the target."""
    native: Annotated[float, Column("unedited", words.percent)]
    """Share of the unedited ones that do."""
    random: Annotated[float, Column("random", words.percent)]
    """Share with random directions of the same norm; NaN where they were not run."""
    lift: Annotated[Change, changed("lift (nats)", p="p lift")]
    """Of the target's log probability at the first new token, nats."""
    saturated: Annotated[float, Column("saturated", words.percent)]
    """Share of continuations in which the target is half of the tokens or more."""
    p_native: Annotated[float, Column("p unedited", words.quantity)]
    """Sign test over prompts against the unedited continuations (McNemar's exact test where a prompt has one target),
    Holm-corrected over all of the table's tests of inclusion."""
    p_random: Annotated[float, Column("p random", words.quantity)]
    """The same against random directions; NaN where they were not run."""


Summary = Cells[Cell]


def summarise(tables: Mapping[str, pd.DataFrame], config: InstallsConfig) -> Summary:
    """The summary of the records."""
    records = tables["records"].sort_values(["passage", "which"], kind="stable")
    ranks = pd.Series(zip(records.rank_low, records.rank_high, strict=True), records.index)
    parts = list(cells(records.assign(ranks=ranks), BY))
    controls = {tuple(how.values())[1:]: part for how, part in parts if how["direction"] == "random"}
    randoms = [controls.get(tuple(how.values())[1:]) for how, _ in parts]
    tests = [gain_test(part, part.native) for _, part in parts]
    for (how, part), random in zip(parts, randoms, strict=True):
        other = None if how["direction"] == "random" else random
        tests.append(float("nan") if other is None else gain_test(part, other.included))
    p = holm(tests)
    lifts = corrected([change_of(part.lift, part.passage, config.seed, part.floor) for _, part in parts])
    return Cells(
        tuple(
            Cell(
                **how, lift=lift, p_native=native, p_random=against,
                said=share(part.included, part.passage, config.seed), native=float(part.native.mean()),
                random=float("nan") if random is None else float(random.included.mean()),
                saturated=float((part["share"] >= SATURATED).mean()),
            )
            for (how, part), random, lift, native, against in zip(
                parts, randoms, lifts, p[: len(parts)], p[len(parts) :], strict=True
            )
        )
    )  # fmt: skip


def gain_test(part: pd.DataFrame, other: pd.Series[bool]) -> float:
    """Prompts whose continuations contain their targets more often than the other ones, against those less often."""
    gains: NDArray[np.int64] = part.included.to_numpy(int) - other.to_numpy(int)
    return sign_test(gains, part.passage)


def finding(result: Result[InstallsConfig, Summary]) -> str:
    """The setting that installs best, and how many differ from the unedited continuations."""
    meant = [r for r in result.summary.cells if r.direction != "random"] or list(result.summary.cells)
    best = min(meant, key=lambda r: (r.p_native, -abs(r.said.value - r.native), -abs(r.lift.mean)))
    random = "" if not words.finite(best.random) else f", {words.percent(best.random)} with random directions"
    setting = (
        f"{best.direction} direction, {words.timing(best.timing)}, last {best.last} tokens, "
        f"{words.plain(best.magnitude)} native writes, {_ranks(best.ranks)}"
    )
    said = (
        f"Written at {result.provenance.site} ({setting}), {words.percent(best.said.value)} "
        f"({words.interval(best.said.bounds)}) of {words.count(best.said.n)} continuations hold the target, "
        f"{words.percent(best.native)} unedited{random} (p {words.quantity(best.p_native)}, Holm-corrected); "
    )
    differ = sum(r.p_native < 0.05 for r in meant)
    said += f"{differ} of {words.plural(len(meant), 'setting')} differ from the unedited ones. "
    if best.lift.small:
        return said + (
            f"Its first-step lift is too small to decide: {words.percent(best.lift.above)} of the prompts are moved by "
            "more than rounding."
        )
    return f"{said}Its first-step lift is {words.signed(best.lift.mean)} nats ({words.span(best.lift.interval)})."


def panel(result: Result[InstallsConfig, Summary]) -> Panel:
    """Inclusion and lift by dose."""
    plots, x = [], "norm (native writes)"
    for number, rows in enumerate(result.summary.alike("timing", "native_write", "last", "ranks")):
        one = rows[0]
        title = f"{words.timing(one.timing)}, last {one.last} tokens, {_ranks(one.ranks)}"
        title += f", {one.native_write} write" if len(result.config.native_writes) > 1 else ""
        said = curves_of(rows, "direction", DIRECTIONS, lambda r: Point(r.magnitude, r.said.value, r.said.bounds))
        figure = by_dose(said, x, "target is said", words.percent, one.native, share=True)
        plots.append(Plot(f"said-{number}", f"Said: {title}", figure, "Dashed: unedited."))
        lift = curves_of(rows, "direction", DIRECTIONS, lambda r: Point(r.magnitude, r.lift.mean, r.lift.interval))
        figure = by_dose(lift, x, "first-step lift (nats)", words.signed, 0.0)
        plots.append(Plot(f"lift-{number}", f"Lift: {title}", figure, "Bars: 95 % bootstrap intervals over prompts."))
    note = (
        f"{words.count(result.config.new_tokens)} greedy tokens a prompt. Random: directions of the same norm. "
        "Lift: change of the target\u2019s log probability as the first new token. Saturated: at least half of the new "
        "tokens are the target. p: exact sign test over prompts, and signed ranks of the lift, Holm-corrected over the "
        "table. Under after token a write at the last position is first read one token later."
    )
    return Panel(tuple(plots), table_of(Cell, result.summary.cells), note)


def _ranks(ranks: tuple[int, int]) -> str:
    return f"ranks {ranks[0]} to {ranks[1] - 1}"
