"""What the records say: in numbers, in words, in figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from writesae.evals.common.cells import Cells, ScoredCell, cells, inside
from writesae.evals.common.conditions import CONDITIONS, Size, common, conditions, step_column
from writesae.evals.common.floor import Floor, floor_of, rate
from writesae.evals.common.result import Result
from writesae.evals.common.stats import (
    Interval,
    Share,
    Test,
    cliffs_delta,
    cluster_means,
    clustered,
    paired_delta,
    share,
    wilcoxon,
)
from writesae.evals.substitution import SubstitutionConfig
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
from writesae.show.parts import Panel, Plot, Reading, Table

COLUMNS = common("passage", "position", "token", "timing") | {
    "context?": "the text up to and including the token, where the host has a tokenizer",
    "token_text?": "the token's text",
    "feature*": "the feature with the largest coefficient; `feature_SITE` of each head where several are edited",
    "coefficient*": "its coefficient",
    "cosine*": "cosine of the atom to the native write, of all heads together and of each",
    "write_norm*": "Frobenius norm of the native write",
    "share*": "the same over the norm of the head's native state after the token",
    "native_write": "which matrix counts as the write",
    "reading": "which feature stands in its place: the largest in the state, the one that the write raises most "
    "(increment), or of a dictionary of writes the largest in its code (write)",
    "amplitude": "how large the atom and the controls are",
    "direction": "direction of the KL divergences",
    "floor": "KL between two native runs whose rounding differs, nats a token",
    "kl_*": "KL from the native run with this in the write's place, nats a token, mean over the scored positions",
    "top1_*": "whether the most likely token at the first scored position changes",
    "step*": "KL at one of several scored positions",
}


@dataclass(frozen=True)
class Cell(ScoredCell):
    """One way of measuring."""

    passages: int
    """Passages that hold firings."""
    wins: Share
    """Firings where the atom has a strictly smaller KL than deletion; its interval is by passage."""
    by_feature: Interval
    """The same, resampling features (combinations of features where several heads are edited)."""
    floor: Floor
    """The same among firings where the effect of deletion stands above rounding, and what they decide."""
    wins_against: dict[str, Share]
    """Every other condition -> share of firings where the atom has a strictly smaller KL."""
    strict_chain: float
    """Share with KL of atom < deletion < random."""
    median_kl: dict[str, float]
    """Condition -> median KL in nats a token."""
    top1: dict[str, float]
    """Condition -> share of firings where the most likely token at the first scored position changes."""
    cosine: float
    """Median cosine of the atom to the native write."""
    share: float
    """Median norm of the native write over that of the state after the token."""
    wilcoxon: Test
    """Signed ranks of KL of atom against deletion, paired by passage, on the passages' means."""
    paired_delta: float
    """Share of firings where the atom is closer than deletion minus the share where it is farther."""
    cliffs_delta: float
    """The same over all pairs of firings, KL of deletion against atom."""
    failures_by_quartile: tuple[float, ...]
    """Share of firings where the atom does not win, by quartile of the KL of deletion, smallest effect first."""
    wins_by_step: tuple[float, ...]
    """Share of wins over deletion at each scored position."""
    median_kl_by_step: dict[str, tuple[float, ...]]
    """Condition -> median KL at each scored position, the first one first."""


Summary = Cells[Cell]


def summarise(tables: Mapping[str, pd.DataFrame], config: SubstitutionConfig) -> Summary:
    """The summary of the records."""
    return Cells(tuple(_cell(how, table, config.seed) for how, table in cells(tables["records"])))


def _cell(how: dict[str, Any], records: pd.DataFrame, seed: int) -> Cell:
    names = conditions(records)
    kl = {name: records[f"kl_{name}"].to_numpy() for name in names}
    steps = {name: _by_step(records, name) for name in names}
    atom, delete, passage = kl["atom"], kl["delete"], records.passage.to_numpy()
    wins = atom < delete
    quartile = np.searchsorted(np.quantile(delete, [0.25, 0.5, 0.75]), delete, side="left")
    failed = [float(1 - wins[quartile == q].mean()) if (quartile == q).any() else float("nan") for q in range(4)]
    features = [str(c) for c in records.columns if c == "feature" or str(c).startswith("feature_")]
    return Cell(
        **how,
        passages=len(np.unique(passage)),
        wins=share(wins, passage, seed),
        by_feature=clustered(wins, records.groupby(features).ngroup().to_numpy(), seed),
        floor=floor_of(wins, delete, records.floor.to_numpy(), passage, seed),
        wins_against={n: share(atom < x, passage, seed) for n, x in kl.items() if n not in ("atom", "delete")},
        strict_chain=float((wins & (delete < kl["random"])).mean()),
        median_kl={name: float(np.median(x)) for name, x in kl.items()},
        top1={name: float(records[f"top1_{name}"].mean()) for name in names},
        cosine=float(np.median(records.cosine)),
        share=float(np.median(records.share)),
        wilcoxon=wilcoxon(cluster_means(atom, passage), cluster_means(delete, passage)),
        paired_delta=paired_delta(delete, atom),
        cliffs_delta=cliffs_delta(delete, atom),
        failures_by_quartile=tuple(failed),
        wins_by_step=tuple(float((a < d).mean()) for a, d in zip(steps["atom"], steps["delete"], strict=True)),
        median_kl_by_step={name: tuple(float(np.median(x)) for x in each) for name, each in steps.items()},
    )


def _by_step(records: pd.DataFrame, condition: str) -> list[np.ndarray[tuple[int], np.dtype[np.float64]]]:
    """A condition's KL at each scored position, all firings each."""
    found, step = [], 1
    while step_column(condition, step) in records.columns:
        found.append(records[step_column(condition, step)].to_numpy())
        step += 1
    return found or [records[f"kl_{condition}"].to_numpy()]


COLOUR = {"delta": "atom", "value": "violet"}
SYMBOL = {"state": "circle", "increment": "diamond", "write": "circle"}
DASHES = ("solid", "dot", "dash", "dashdot")
"""Of the timings and readings."""


def finding(result: Result[SubstitutionConfig, Summary]) -> str:
    """How often the atom wins, for every timing and form of the write."""
    said = "; ".join(f"{cell.named}, {rate(cell.wins, cell.floor)}" for cell in result.summary.main)
    return f"How often the atom disturbs the model less than deleting the write does: {said}."


def panel(result: Result[SubstitutionConfig, Summary]) -> Panel:
    """Firings one by one for every timing and write, wins and KLs of every condition, and a table of all ways."""
    summary = result.summary
    plots = [_scatter(cell, inside(result.records, cell)) for cell in summary.main]
    plots += [_grid(summary), _wins(summary), _distances(summary, result.records)]
    plots += _steps(summary) if result.config.horizon > 1 else []
    return Panel(tuple(plots), _table(summary), _note(summary))


def _scatter(cell: Cell, table: pd.DataFrame) -> Plot:
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


def _lines(figure: go.Figure, names: Sequence[str], summary: Summary, sizeless: str = "") -> list[tuple[str, Size]]:
    """The lines of a chart: every condition at every amplitude, once for one that has none."""
    sizes = list(dict.fromkeys(cell.amplitude for cell in summary.cells))
    lines = [(name, size) for name in names for size in (sizes[:1] if name == sizeless else sizes)]
    marks = [f", {size}" if len(sizes) > 1 and name != sizeless else "" for name, size in lines]
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


def _wins(summary: Summary) -> Plot:
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
        "amplitude; bars: 95 % intervals resampling passages. Dashed: one half."
    )
    return Plot("wins", "The atom against everything else", figure, caption)


def _grid(summary: Summary) -> Plot:
    """The win rate over deletion in every cell of the grid: which of the ways of measuring carries a claim."""
    several = len({cell.direction for cell in summary.cells}) > 1

    def column(cell: Cell) -> str:
        return cell.amplitude + (f", {cell.direction}" if several else "")

    rows, columns = (list(dict.fromkeys(map(name, summary.cells))) for name in (lambda cell: cell.named, column))
    decided = {(c.named, column(c)): c.wins.value for c in summary.cells if c.floor.verdict != "too small to decide"}
    grid = Grid(rows, columns, [[decided.get((row, name)) for name in columns] for row in rows])
    caption = "Share of firings where the atom is closer than deletion. Blue-green: more than half, orange: less."
    return Plot("grid", "Every way of measuring", heat_map(grid, words.percent, around=0.5), caption)


def _distances(summary: Summary, records: pd.DataFrame) -> Plot:
    """Median and middle half of the KL of every condition."""
    figure = canvas()
    lines = _lines(figure, conditions(records), summary, sizeless="delete")
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


def _steps(summary: Summary) -> list[Plot]:
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


def _table(summary: Summary) -> Table:
    others = list(summary.cells[0].wins_against)
    several = len({cell.direction for cell in summary.cells}) > 1
    head = (
        "the atom", "closer than deletion", "above rounding", "closer, of these", "decides",
        *(f"closer than {words.short_condition(name)}" for name in others), "median KL, atom", "deletion",
        *(words.short_condition(name) for name in others), "top token changes, atom", "deletion",
    )  # fmt: skip
    rows = []
    for cell in summary.cells:
        named = f"{cell.named}, {words.amplitude(cell.amplitude)}" + (f", {cell.direction}" if several else "")
        kls = (cell.median_kl["atom"], cell.median_kl["delete"], *(cell.median_kl[name] for name in others))
        rows.append(
            (
                named, f"{words.percent(cell.wins.value)} ({words.interval(cell.wins.interval)})",
                words.percent(cell.floor.above), words.percent(cell.floor.wins.value), cell.floor.verdict,
                *(words.percent(cell.wins_against[name].value) for name in others), *map(words.quantity, kls),
                words.percent(cell.top1["atom"]), words.percent(cell.top1["delete"]),
            )
        )  # fmt: skip
    return Table(head, rows)


def _note(summary: Summary) -> str:
    said = []
    for cell in summary.main:
        quartiles = ", ".join(words.percent(share, 0) for share in cell.failures_by_quartile)
        parts = [
            f"{words.sentence(cell.named)[:-1]}: strict chain atom < deletion < random "
            f"{words.percent(cell.strict_chain)}",
            f"median cosine to the write {words.quantity(cell.cosine)}",
            f"median norm of the write over that of the state {words.quantity(cell.share)}",
            f"win rate resampling features {words.interval(cell.by_feature)}",
            f"paired difference {words.signed(cell.paired_delta)}",
            f"Cliff\u2019s delta {words.signed(cell.cliffs_delta)}",
            f"Wilcoxon on the means of {words.count(cell.passages)} passages p = {words.quantity(cell.wilcoxon.p)}",
            f"failures by quartile of the deletion\u2019s effect, smallest first, {quartiles}",
        ]
        said.append("; ".join(parts) + ".")
    said.append(
        "After token: only later tokens read the edited state. At token: the firing token reads it too. Delta write: "
        "what the token really adds to the decayed state; value write: the paper\u2019s b k v\u1d40. Read by state: "
        "the feature with the largest coefficient in the state; by increment: the one that the write raises most, by "
        "how much it raises it. Intervals are by passage."
    )
    return " ".join(said)
