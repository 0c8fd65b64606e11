"""The figures of the substitution test."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from writesae.evals.common.cells import inside
from writesae.evals.common.conditions import CONDITIONS, SIZED, Size, conditions
from writesae.evals.substitution.summary import Cell, Summary, accounts
from writesae.show import words
from writesae.show.figures import (
    NUMERICAL_ZERO,
    Dot,
    Floats,
    canvas,
    corner,
    curve,
    diagonal,
    dots,
    drawn_of,
    label,
    level,
    lines_of,
    log_ticks,
    marks,
    thinned,
    upright,
)
from writesae.show.heat_map import Grid, heat_map
from writesae.show.parts import Plot, Reading

COLOUR = {"delta": "atom", "value": "violet"}
SYMBOL = {"state": "circle", "increment": "diamond", "write": "circle"}
DASHES = ("solid", "dot", "dash", "dashdot")
"""Of the timings and readings."""


def scatter(cell: Cell, table: pd.DataFrame) -> Plot:
    """KL with the atom in place of the write (x) against the KL of each control (y), log-log."""
    rows = thinned(len(table))
    shown = {name: table[f"kl_{name}"].to_numpy()[rows] for name in ("atom", "delete", "random")}
    everything = np.concatenate(list(shown.values()))
    floor = _floor(everything)
    floored = int((everything < floor).sum())
    low, high = floor / 1.6, max(float(everything.max(initial=0.0)), floor * 10) * 1.6
    described = [_reading(row) for row in table.iloc[rows].to_dict("records")]
    readings = described if any(reading.before or reading.token for reading in described) else []
    about = "" if readings else "<br>%{text}"
    text = None if readings else [label(one.numbers).replace(", ", "<br>") for one in described]
    figure = canvas(430)
    x = np.maximum(shown["atom"], floor)
    for name, symbol, opacity, line in (("random", "circle-open", 0.7, 1), ("delete", "circle", 0.6, 0)):
        says = f"KL atom %{{x:.3g}}<br>KL {name} %{{y:.3g}}{about}"
        more = {"customdata": list(range(len(rows))), "text": text, "name": f"against {name}"}
        marks(figure, x, np.maximum(shown[name], floor), name, 5, opacity, says, **more)
        figure.data[-1].marker.update(symbol=symbol, line={"width": line})
    diagonal(figure, low, high)
    figure.update_xaxes(title="KL of the atom (nats)", **log_ticks(low, high))
    figure.update_yaxes(title="KL of the control (nats)", **log_ticks(low, high))
    corner(figure, "atom disturbs less", top=True, left=True)
    corner(figure, "control disturbs less", top=False, left=False)
    figure.update_layout(legend={"traceorder": "reversed"})
    caption = drawn_of(len(rows), len(table), "scored firings")
    if floored:
        caption += f" {words.plural(floored, 'value')} below {words.quantity(floor)} drawn there."
    caption += " Above the diagonal the atom is closer to the native model."
    name, title = f"scatter-{cell.timing}-{cell.native_write}-{cell.reading}", f"Firing by firing, {cell.named}"
    return Plot(name, title, figure, caption, readings=readings)


def _floor(values: Floats) -> float:
    """Where numerical zeros are drawn."""
    positive = values[values > NUMERICAL_ZERO]
    return float(positive.min()) if positive.size else NUMERICAL_ZERO


def _reading(row: Mapping[object, object]) -> Reading:
    token, context = str(row.get("token_text", "")), str(row.get("context", ""))
    before = words.visible(context[: -len(token)] if token and context.endswith(token) else context)
    named = [(str(name).replace("_", " "), str(name).split("_")[0], value) for name, value in row.items()]
    features = [f"{name} {value}" for name, kind, value in named if kind == "feature"]
    numbers = [f"{name} {words.quantity(float(str(value)))}" for name, kind, value in named if kind == "coefficient"]
    cosine = f"cosine to the write {words.quantity(float(str(row['cosine'])))}"
    return Reading(before.lstrip(), words.visible_token(token), words.visible(", ".join([*features, *numbers, cosine])))


def _lines(
    figure: go.Figure, names: Sequence[str], summary: Summary, sizeless: Container[str] = ()
) -> list[tuple[str, Size]]:
    """The lines of a chart: every condition at every amplitude, once for those that have none."""
    sizes = list(dict.fromkeys(cell.amplitude for cell in summary.cells))
    lines = [(name, size) for name in names for size in (sizes[:1] if name in sizeless else sizes)]
    marks = [f", {size}" if len(sizes) > 1 and name not in sizeless else "" for name, size in lines]
    named = [words.short_condition(name) + mark for (name, _), mark in zip(lines, marks, strict=True)]
    lines_of(figure, named, len(summary.main))
    return lines


def _looks(summary: Summary) -> list[tuple[Cell, str, float, bool]]:
    """(cell, colour, place on the line, hollow) of each series: colour says the write, hollow the second timing.
    By increment, dots are diamonds."""
    cells, first = summary.main, summary.cells[0].timing
    step = 0.68 / max(1, len(cells))
    return [
        (cell, COLOUR[cell.native_write], (i - (len(cells) - 1) / 2) * step, cell.timing != first)
        for i, cell in enumerate(cells)
    ]


def _at(summary: Summary, cell: Cell, amplitude: Size) -> Cell:
    how = {name: getattr(cell, name) for name in ("timing", "native_write", "reading")}
    return summary.cell(**how, amplitude=amplitude)


def wins(summary: Summary) -> Plot:
    """Share of firings where the atom's KL is strictly smaller, against every other condition."""
    figure = canvas()
    lines = _lines(figure, ["delete", *summary.cells[0].wins_against], summary)
    for cell, colour, shift, hollow in _looks(summary):
        entries = []
        for name, size in lines:
            at = _at(summary, cell, size)
            share = at.wins if name == "delete" else at.wins_against[name]
            text = f"{words.condition(name)}, {words.amplitude(size)}"
            entries.append(Dot(text, share.value, share.interval, f"{words.count(share.n)} firings"))
        dots(figure, cell.named, entries, colour, shift, words.percent, hollow, SYMBOL[cell.reading])
    upright(figure, 0.5)
    figure.update_xaxes(title="firings where the atom is closer", range=[-0.02, 1.02], tickformat=".0%", dtick=0.25)
    caption = (
        "Share of firings where the KL of the atom is strictly smaller than with this in its place, both at the same "
        "amplitude; bars: 95 % intervals resampling what was drawn. Dashed: one half."
    )
    return Plot("wins", "The atom against everything else", figure, caption)


def grid(summary: Summary) -> Plot:
    """How often the atom is closer than deletion, and than each random control, in every cell of the grid: which ways
    of measuring carry a claim. Published ones are outlined and named."""
    several = len({cell.direction for cell in summary.cells}) > 1
    drawn = list(summary.cells[0].strict_chain)
    against = ["delete", *(drawn[1:] if set(SIZED) <= set(drawn) else drawn)]

    def row(cell: Cell) -> str:
        return cell.named + (f", {cell.direction}" if several else "")

    sizes, rows = (list(dict.fromkeys(x)) for x in ([c.amplitude for c in summary.cells], map(row, summary.cells)))
    columns = [(size, name) for size in sizes for name in against]
    values = dict[tuple[int, int], float]()
    named = dict[tuple[int, int], str]()
    for cell in (cell for cell in summary.cells if cell.floor.verdict != "too small to decide"):
        r = rows.index(row(cell))
        for name in against:
            share = cell.wins if name == "delete" else cell.wins_against[name]
            values[r, columns.index((cell.amplitude, name))] = share.value
        for account, random in accounts(cell).items():
            for name in ("delete", random if random in against else "random"):
                named[r, columns.index((cell.amplitude, name))] = account
    heads = [f"{words.short_condition(name)}\natom at\n{size}".replace(", ", ",\n") for size, name in columns]
    shown = Grid(rows, heads, [[values.get((r, c)) for c in range(len(columns))] for r in range(len(rows))])
    caption = (
        "Share of firings where the atom is closer than this in its place, by the atom\u2019s size. Blue-green: more "
        "than half, orange: less."
    ) + (" Outlined: the published protocols." if named else "")
    figure = heat_map(shown, words.percent, around=0.5, marked=named)
    return Plot("grid", "Every way of measuring", figure, caption, "whole" if len(columns) > 4 else "half")


def distances(summary: Summary, records: pd.DataFrame) -> Plot:
    """Median and middle half of the KL of every condition."""
    figure = canvas()
    lines = _lines(figure, conditions(records), summary, sizeless=("delete", *SIZED))
    ends = []
    for cell, colour, shift, hollow in _looks(summary):
        entries = []
        for name, size in lines:
            kl = inside(records, _at(summary, cell, size))[f"kl_{name}"].to_numpy()
            low, middle, high = (float(q) for q in np.maximum(np.quantile(kl, [0.25, 0.5, 0.75]), NUMERICAL_ZERO))
            ends += [low, high]
            entries.append(Dot(f"{words.condition(name)}, {words.amplitude(size)}", middle, (low, high)))
        dots(figure, cell.named, entries, colour, shift, words.quantity, hollow, SYMBOL[cell.reading])
    figure.update_xaxes(title="KL from the native model (nats)", **log_ticks(min(ends) / 1.3, max(ends) * 1.3))
    caption = "Dot: median over firings; bar: the middle half. Smaller is closer."
    return Plot("distances", "How far each replacement is", figure, caption)


def steps(summary: Summary) -> list[Plot]:
    """Where several positions were scored: win rate and median KL at each."""
    wins, kls = canvas(), canvas()
    kinds = list(dict.fromkeys((cell.timing, cell.reading) for cell in summary.main))
    for cell in summary.main:
        dash = DASHES[kinds.index((cell.timing, cell.reading))]
        positions, says = list(range(1, len(cell.wins_by_step) + 1)), "position %{x}: %{y:.3g}"
        about = {"dash": dash, "mode": "lines+markers"}
        colour = COLOUR[cell.native_write]
        curve(wins, positions, cell.wins_by_step, colour, 2.25, says, name=label(cell.named), **about)
        for name in CONDITIONS:
            said = label(f"{name}, {cell.named}")
            curve(kls, positions, cell.median_kl_by_step[name], name, 2.25, says, name=said, **about)
    for figure in (wins, kls):
        figure.update_xaxes(title="scored position, the first one is 1", dtick=1)
    level(wins, 0.5)
    wins.update_yaxes(title="win rate over deletion", tickformat=".0%", range=[-0.02, 1.02])
    known = [y for trace in kls.data for y in trace.y if y is not None and y > NUMERICAL_ZERO]
    ends = (min(known) / 1.3, max(known) * 1.3) if known else (NUMERICAL_ZERO, 1.0)
    kls.update_yaxes(title="median KL (nats)", **log_ticks(*ends))
    said = "Share of firings where the atom is closer, at each scored position."
    return [
        Plot("steps-wins", "Does it last?", wins, said),
        Plot("steps-kl", "How the effect fades", kls, "Median over firings at each scored position."),
    ]
