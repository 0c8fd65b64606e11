"""One atom in the place of one write: how often, and by how much, it is closer to the native model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from writesae.evals.common.stats import wilson
from writesae.evals.old.measured import Measured
from writesae.evals.old.structure import Test
from writesae.show import words
from writesae.show.figures import (
    NUMERICAL_ZERO,
    Dot,
    Floats,
    Interval,
    canvas,
    corner,
    diagonal,
    dots,
    drawn_of,
    label,
    lines_of,
    log_ticks,
    rounded,
    thinned,
    upright,
)
from writesae.show.parts import Panel, Plot, Reading, Table

CONDITIONS = ("atom", "atom_norm", "delete", "random", "random_norm")
"""What every substitution test has put in the place of the native write."""


@dataclass(frozen=True)
class Detail:
    """Effect sizes and paired tests, where the result has them."""

    interval_by_feature: Interval | None
    wilcoxon: Test
    paired_delta: float | None
    cliffs_delta: float | None
    failures_by_quartile: tuple[float | None, float | None, float | None, float | None]
    win_rate_by_step: tuple[float | None, ...] = ()
    """At each scored position."""
    median_kl_by_step: dict[str, tuple[float | None, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """The substitution test of one dictionary under one protocol."""

    n: int
    """Firings scored."""
    attempted: int
    """Firings drawn; attempted = n + refused."""
    refused: dict[str, int]
    """How many firings were refused, by reason."""
    win_rate: float | None
    """Share of firings where the atom at its coefficient has a strictly smaller KL than deletion."""
    interval: Interval | None
    """95 % Wilson interval of `win_rate`."""
    median_kl: dict[str, float | None]
    """Condition -> median KL in nats."""
    interval_clustered: Interval | None = None
    """95 % bootstrap interval of `win_rate`, resampling passages."""
    win_rate_norm: float | None = None
    """As `win_rate`, for the atom rescaled to the native write's Frobenius norm."""
    interval_norm: Interval | None = None
    strict_chain: float | None = None
    """Share of firings with KL atom < KL delete < KL random."""
    median_cosine: float | None = None
    """Median cosine of the atom to the native write at its firings."""
    detail: Detail | None = None


def build(of: Measured) -> Panel:
    """Scatter of firings, win rates over every condition, and the KLs themselves, under each timing."""
    of.need(["protocol", "cosine"])
    outcomes = of.read(dict[str, Outcome])
    records = of.numeric(_kls(of.records) or [f"kl_{name}" for name in CONDITIONS])
    of.need(f"kl_{name}" for name in CONDITIONS)
    tables = {timing: records[records.protocol == timing] for timing in outcomes}
    scatters = tuple(_scatter(of, timing, table) for timing, table in tables.items())
    plots = [*scatters, _wins(tables), _distances(tables)] if any(len(t) for t in tables.values()) else []
    if any(one.detail is not None and len(one.detail.win_rate_by_step) > 1 for one in outcomes.values()):
        plots += _steps(outcomes)
    return Panel(_finding(outcomes), tuple(plots), _table(tables, outcomes), _note(outcomes))


def _kls(records: pd.DataFrame) -> list[str]:
    return [str(column) for column in records.columns if str(column).startswith("kl_")]


def _conditions(tables: Mapping[str, pd.DataFrame]) -> list[str]:
    return [name.removeprefix("kl_") for name in _kls(next(iter(tables.values())))]


def _finding(outcomes: Mapping[str, Outcome]) -> str:
    said = []
    for timing, one in outcomes.items():
        bounds = f"95 % interval {words.interval(one.interval)}"
        if one.interval_clustered:
            bounds += f"; {words.interval(one.interval_clustered)} resampling passages"
        share = f"at {words.percent(one.win_rate)} of {words.count(one.n)} firings"
        said.append(f"{share} {words.timing(timing)} ({bounds})")
    return f"The atom disturbs the model less than deleting the write does {', and '.join(said)}."


def _scatter(of: Measured, timing: str, table: pd.DataFrame) -> Plot:
    """KL with the atom in place of the write (x) against the KL of each control (y), log-log."""
    columns = {name: table[f"kl_{name}"].to_numpy() for name in ("atom", "delete", "random")}
    whole = np.flatnonzero(np.isfinite(np.stack(list(columns.values()))).all(axis=0))
    rows = whole[thinned(len(whole))]
    shown = {name: column[rows] for name, column in columns.items()}
    everything = np.concatenate(list(shown.values()))
    floor = _floor(everything)
    floored = int((everything < floor).sum())
    top = max(float(everything.max(initial=0.0)), floor * 10)
    low, high = floor / 1.6, top * 1.6

    described = [_reading(row) for row in table.iloc[rows].to_dict("records")]
    readings = described if any(reading.before or reading.token for reading in described) else []
    about = "" if readings else "<br>%{text}"
    figure = canvas(430)
    for name, symbol, opacity, line in (("random", "circle-open", 0.7, 1), ("delete", "circle", 0.6, 0)):
        figure.add_trace(
            go.Scatter(
                x=rounded(np.maximum(shown["atom"], floor)),
                y=rounded(np.maximum(shown[name], floor)),
                customdata=list(range(len(rows))),
                text=None if readings else [label(one.numbers).replace(", ", "<br>") for one in described],
                name=f"against {name}",
                mode="markers",
                marker={
                    "color": f"var(--{name})",
                    "size": 5,
                    "opacity": opacity,
                    "symbol": symbol,
                    "line": {"width": line},
                },
                hovertemplate=f"KL atom %{{x:.3g}}<br>KL {name} %{{y:.3g}}{about}<extra></extra>",
            )
        )
    diagonal(figure, low, high)
    figure.update_xaxes(title="KL of the atom (nats)", **log_ticks(low, high))
    figure.update_yaxes(title="KL of the control (nats)", **log_ticks(low, high))
    corner(figure, "atom disturbs less", top=True, left=True)
    corner(figure, "control disturbs less", top=False, left=False)
    figure.update_layout(legend={"traceorder": "reversed"})
    caption = drawn_of(len(rows), len(whole), "scored firings")
    if floored:
        caption += f" {words.plural(floored, 'value')} below {words.quantity(floor)} drawn there."
    title = f"Firing by firing, {words.timing(timing)}"
    return Plot(
        f"scatter-{timing}",
        title,
        figure,
        f"{caption} Above the diagonal the atom is closer to the native model.",
        readings=readings,
    )


def _floor(values: Floats) -> float:
    """Where numerical zeros are drawn."""
    positive = values[values > NUMERICAL_ZERO]
    return float(positive.min()) if positive.size else NUMERICAL_ZERO


def _reading(row: Mapping[object, object]) -> Reading:
    token, context = str(row.get("token_text", "")), str(row.get("context", ""))
    before = words.visible(context[: -len(token)] if token and context.endswith(token) else context)
    numbers = [
        f"{str(name).replace('_', ' ')} {words.quantity(float(str(value)))}"
        for name, value in row.items()
        if str(name).split("_")[0] == "coefficient"
    ]
    features = [
        f"{str(name).replace('_', ' ')} {value}" for name, value in row.items() if str(name).split("_")[0] == "feature"
    ]
    cosine = f"cosine to the write {words.quantity(float(str(row['cosine'])))}"
    return Reading(before.lstrip(), words.visible_token(token), words.visible(", ".join([*features, *numbers, cosine])))


def _wins(tables: Mapping[str, pd.DataFrame]) -> Plot:
    """Share of firings where the atom's KL is strictly smaller, against every other condition."""
    others = [name for name in _conditions(tables) if name != "atom"]
    figure = canvas()
    lines_of(figure, [words.short_condition(name) for name in others])
    for timing, colour, shift, hollow in _styles(tables):
        entries = [_win(tables[timing], name) for name in others]
        dots(figure, words.timing(timing), entries, colour, shift, words.percent, hollow)
    upright(figure, 0.5)
    figure.update_xaxes(title="firings where the atom is closer", range=[-0.02, 1.02], tickformat=".0%", dtick=0.25)
    caption = (
        "Share of firings where the KL of the atom, at its coefficient, is strictly smaller than with this in its "
        "place; bars: 95 % Wilson intervals. Dashed: one half."
    )
    return Plot("wins", "The atom against everything else", figure, caption)


def _win(table: pd.DataFrame, name: str) -> Dot:
    wins = int((table.kl_atom < table[f"kl_{name}"]).sum())
    share = wins / len(table) if len(table) else None
    return Dot(words.condition(name), share, wilson(wins, len(table)), f"{wins:,} of {len(table):,} firings")


def _distances(tables: Mapping[str, pd.DataFrame]) -> Plot:
    """Median and middle half of the KL of every condition."""
    names = _conditions(tables)
    figure = canvas()
    lines_of(figure, [words.short_condition(name) for name in names])
    ends = []
    for timing, colour, shift, hollow in _styles(tables):
        entries = []
        for name in names:
            low, middle, high = (
                float(q)
                for q in np.maximum(np.nanquantile(tables[timing][f"kl_{name}"], [0.25, 0.5, 0.75]), NUMERICAL_ZERO)
            )
            ends += [low, high]
            entries.append(Dot(words.condition(name), middle, (low, high)))
        dots(figure, words.timing(timing), entries, colour, shift, words.quantity, hollow)
    figure.update_xaxes(title="KL from the native model (nats)", **log_ticks(min(ends) / 1.3, max(ends) * 1.3))
    return Plot(
        "distances",
        "How far each replacement is",
        figure,
        "Dot: median over firings; bar: the middle half. Smaller is closer.",
    )


def _steps(outcomes: Mapping[str, Outcome]) -> list[Plot]:
    """Where several positions were scored: win rate and median KL at each."""
    wins, kls = canvas(), canvas()
    looks = {"atom": "var(--atom)", "delete": "var(--delete)", "random": "var(--random)"}
    for timing, dash in zip(outcomes, ("solid", "dot"), strict=False):
        detail = outcomes[timing].detail
        if detail is None:
            continue
        positions = list(range(1, len(detail.win_rate_by_step) + 1))
        about = {"mode": "lines+markers", "hovertemplate": "position %{x}: %{y:.3g}<extra></extra>"}
        name = words.timing(timing)
        line = {"color": "var(--atom)", "width": 2.25, "dash": dash}
        wins.add_trace(
            go.Scatter(x=positions, y=rounded(detail.win_rate_by_step), name=label(name), line=line, **about)
        )
        for condition, colour in looks.items():
            medians = rounded(detail.median_kl_by_step.get(condition, ()))
            line, said = {"color": colour, "width": 2.25, "dash": dash}, f"{condition}, {name}"
            kls.add_trace(go.Scatter(x=positions, y=medians, name=label(said), line=line, **about))
    for figure in (wins, kls):
        figure.update_xaxes(title="scored position, the first one is 1", dtick=1)
    wins.add_hline(y=0.5, line={"color": "var(--ink-soft)", "width": 1.25, "dash": "dash"})
    wins.update_yaxes(title="win rate over deletion", tickformat=".0%", range=[-0.02, 1.02])
    known = [y for trace in kls.data for y in trace.y if y is not None and y > NUMERICAL_ZERO]
    ends = (min(known) / 1.3, max(known) * 1.3) if known else (NUMERICAL_ZERO, 1.0)
    kls.update_yaxes(title="median KL (nats)", **log_ticks(*ends))
    return [
        Plot(
            "steps-wins", "Does it last?", wins, "Share of firings where the atom is closer, at each scored position."
        ),
        Plot("steps-kl", "How the effect fades", kls, "Median over firings at each scored position."),
    ]


def _styles(tables: Mapping[str, pd.DataFrame]) -> list[tuple[str, str, float, bool]]:
    """(timing, colour, place on the line, hollow) of each series that has firings."""
    timings = [timing for timing, table in tables.items() if len(table)]
    if len(timings) == 1:
        return [(timings[0], "var(--atom)", 0.0, False)]
    looks = (("var(--atom)", -0.17, False), ("var(--violet)", 0.17, True))
    return [(timing, *look) for timing, look in zip(timings, looks, strict=False)]


def _table(tables: Mapping[str, pd.DataFrame], outcomes: Mapping[str, Outcome]) -> Table:
    timings = [timing for timing, table in tables.items() if len(table)]
    head = ["in the write\u2019s place"]
    for timing in timings:
        head += [f"median KL, {words.timing(timing)}", "atom closer", "top token changes"]
    rows = []
    for name in _conditions(tables):
        row = [words.condition(name)]
        for timing in timings:
            table, median = tables[timing], outcomes[timing].median_kl.get(name)
            shown = float(table[f"kl_{name}"].median()) if median is None else median
            changed = float(table[f"top1_{name}"].mean()) if f"top1_{name}" in table else None
            win = _win(table, name)
            closer = words.MISSING if name == "atom" else f"{words.percent(win.value)} ({words.interval(win.interval)})"
            row += [words.quantity(shown), closer, words.percent(changed)]
        rows.append(tuple(row))
    return Table(tuple(head), rows)


def _note(outcomes: Mapping[str, Outcome]) -> str:
    said = []
    for timing, one in outcomes.items():
        parts = [
            f"{words.timing(timing).capitalize()}: strict chain atom < delete < random "
            f"{words.percent(one.strict_chain)}",
            f"median cosine to the write {words.quantity(one.median_cosine)}",
        ]
        if one.detail is not None:
            quartiles = ", ".join(words.percent(share, 0) for share in one.detail.failures_by_quartile)
            parts += [
                f"win rate resampling features {words.interval(one.detail.interval_by_feature)}",
                f"paired difference {words.signed(one.detail.paired_delta)}, Cliff\u2019s delta "
                f"{words.signed(one.detail.cliffs_delta)}",
                f"Wilcoxon p = {words.quantity(one.detail.wilcoxon.p)}",
                f"failures by quartile of the deletion\u2019s effect, smallest first, {quartiles}",
            ]
        said.append("; ".join(parts) + ".")
    said.append("After token: only later tokens read the edited state. At token: the firing token reads it too.")
    return " ".join(said)
