"""What the records say: in numbers, in words, in figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from writesae.evals.common.cells import Cells, ScoredCell, cells, inside
from writesae.evals.common.classes import CLASSES, COLOURS
from writesae.evals.common.floor import Floor, floor_of
from writesae.evals.common.result import Result
from writesae.evals.common.stats import Interval, Test, clustered, mann_whitney, spearman
from writesae.evals.population import PopulationConfig
from writesae.evals.substitution.summary import COLUMNS as SCORED
from writesae.show import words
from writesae.show.figures import canvas, drawn_of, histogram, level, marks, thinned, upright
from writesae.show.parts import Panel, Plot, Table

COLUMNS = {name: text for name, text in SCORED.items() if not name.startswith(("context", "token_text"))} | {
    "class": "register or bundle, by the atom's median cosine to this form of the write",
    "atom_cosine": "that median, over all firings of the passages",
    "per_10k": "all firings of the atom in 10,000 tokens",
}


@dataclass(frozen=True)
class ClassSummary:
    """The atoms of one class."""

    atoms: int
    win_rate: float
    """Mean over atoms of their share of firings where the atom beats deletion."""
    firings_per_10k: float
    """Median over atoms of all firings a 10,000 tokens."""
    top1_disruption: float
    """Mean over atoms of the share of firings where deletion changes the most likely token."""
    gap: float
    """Median over atoms of their median KL_delete - KL_atom."""


@dataclass(frozen=True)
class Cell(ScoredCell):
    """One way of measuring."""

    atoms: int
    win_rate: float
    """Mean over atoms."""
    interval: Interval
    """Of it, resampling atoms."""
    share: float
    """Median over firings of the norm of the native write over that of the state after the token."""
    floor: Floor
    """Wins of single firings among those where deletion stands above rounding (interval resampling atoms), and what
    they decide."""
    deciles: tuple[float, ...]
    """Of the atoms' win rates: 0 %, 10 %, ... 100 %."""
    classes: dict[str, ClassSummary]
    by_cosine: dict[str, tuple[int, float]]
    """Bin of the atom's median cosine -> atoms in it, their mean win rate."""
    register_against_bundle: Test
    """Mann-Whitney on the atoms' win rates."""
    cosine_correlation: Test
    """Spearman, the atoms' win rates against their median cosines."""


Summary = Cells[Cell]


def by_atom(records: pd.DataFrame) -> pd.DataFrame:
    """One row an atom: firings, win rate, disruption, gap, class, cosine, breadth."""
    table = records.assign(win=records.kl_atom < records.kl_delete, gap=records.kl_delete - records.kl_atom)
    by = table.groupby("feature")
    return pd.DataFrame(
        {
            "n": by.size(),
            "win_rate": by.win.mean(),
            "top1_disruption": by.top1_delete.mean(),
            "gap": by.gap.median(),
            "class": by["class"].first(),
            "cosine": by.atom_cosine.first(),
            "per_10k": by.per_10k.first(),
        }
    )


def summarise(tables: Mapping[str, pd.DataFrame], config: PopulationConfig) -> Summary:
    """The summary of the records."""
    return Cells(tuple(_cell(how, own, config) for how, own in cells(tables["records"])))


def _cell(how: dict[str, Any], records: pd.DataFrame, config: PopulationConfig) -> Cell:
    atoms = by_atom(records)
    groups = {name: atoms[atoms["class"] == name] for name in CLASSES}
    bins = {}
    for low, high in pairwise(config.bins):
        inside = atoms[(atoms.cosine >= low) & (atoms.cosine < high)]
        bins[f"{low} to {high}"] = (len(inside), float(inside.win_rate.mean()))
    wins = records.kl_atom < records.kl_delete
    floor = floor_of(wins, records.kl_delete, records["floor"], records.feature, config.seed)
    return Cell(
        **how,
        atoms=len(atoms),
        win_rate=float(atoms.win_rate.mean()),
        interval=clustered(atoms.win_rate.to_numpy(), atoms.index.to_numpy(), config.seed),
        share=float(records.share.median()),
        floor=floor,
        deciles=tuple(float(q) for q in np.quantile(atoms.win_rate, np.linspace(0, 1, 11))),
        classes={name: _class(group) for name, group in groups.items()},
        by_cosine=bins,
        register_against_bundle=mann_whitney(*(groups[name].win_rate.to_numpy() for name in CLASSES)),
        cosine_correlation=spearman(atoms.win_rate.to_numpy(), atoms.cosine.to_numpy()),
    )


def _class(atoms: pd.DataFrame) -> ClassSummary:
    rate, breadth = float(atoms.win_rate.mean()), float(atoms.per_10k.median())
    return ClassSummary(len(atoms), rate, breadth, float(atoms.top1_disruption.mean()), float(atoms.gap.median()))


def finding(result: Result[PopulationConfig, Summary]) -> str:
    """How often the average atom wins, and atoms of either class."""
    return words.sentence("; ".join(_said(cell) for cell in result.summary.main))


def _said(cell: Cell) -> str:
    if cell.floor.verdict == "too small to decide":
        return (
            f"{cell.named}, too small to decide: the effect of deletion stands above rounding at "
            f"{words.percent(cell.floor.above)} of the firings of {words.count(cell.atoms)} atoms"
        )
    each = ", ".join(f"{name}s {words.percent(c.win_rate)} (n = {c.atoms})" for name, c in cell.classes.items())
    return (
        f"{cell.named}, the average of {words.count(cell.atoms)} atoms beats deletion at "
        f"{words.percent(cell.win_rate)} of its firings (95 % interval over atoms "
        f"{words.interval(cell.interval)}): {each}"
    )


def panel(result: Result[PopulationConfig, Summary]) -> Panel:
    """Distribution of the atoms' win rates by class, and the win rate against the cosine."""
    plots: list[Plot] = []
    for cell in result.summary.main:
        atoms = by_atom(inside(result.records, cell)).reset_index()
        plots += [_distribution(cell, atoms), _cosine(cell, atoms)]
    return Panel(tuple(plots), _table(result.summary), _note(result.summary.main))


def _distribution(cell: Cell, atoms: pd.DataFrame) -> Plot:
    figure = canvas()
    for name, group in atoms.groupby("class"):
        colour = COLOURS[str(name)]
        histogram(figure, group.win_rate.to_numpy(), np.linspace(0, 1, 21), str(name), colour, "win rate")
        upright(figure, float(group.win_rate.mean()), dash="dot", colour=colour, width=2.5)
    figure.update_xaxes(title="firings closer than deletion", tickformat=".0%", range=[-0.01, 1.01])
    figure.update_yaxes(title="atoms", rangemode="tozero")
    caption = f"{words.count(len(atoms))} atoms; dotted: the mean of each class."
    name = f"rates-{cell.timing}-{cell.native_write}-{cell.reading}"
    return Plot(name, f"Win rates of atoms, {cell.named}", figure, caption)


def _cosine(cell: Cell, atoms: pd.DataFrame) -> Plot:
    figure = canvas()
    kept = atoms.iloc[thinned(len(atoms))]
    for name, group in kept.groupby("class"):
        says = "feature %{customdata[0]}, %{customdata[1]} firings<br>cosine %{x:.3g}, win rate %{y:.1%}"
        more = {"name": str(name), "customdata": group[["feature", "n"]].to_numpy().tolist()}
        marks(figure, group.cosine, group.win_rate, COLOURS[str(name)], 7, 0.65, says, **more)
    level(figure, 0.5)
    figure.update_xaxes(title=f"median cosine to the {words.write(cell.native_write)}")
    figure.update_yaxes(title="win rate", tickformat=".0%", range=[-0.04, 1.04])
    caption = drawn_of(len(kept), len(atoms), "atoms") + " Dashed: one half."
    title = f"Do atoms that look like writes work better? {words.sentence(cell.named)[:-1]}"
    return Plot(f"cosine-{cell.timing}-{cell.native_write}-{cell.reading}", title, figure, caption)


def _table(summary: Summary) -> Table:
    rows: list[tuple[str, ...]] = []
    several = len({(c.amplitude, c.direction) for c in summary.cells}) > 1
    for one in summary.cells:
        named = one.named + (f", {words.amplitude(one.amplitude)}, {one.direction}" if several else "")
        whole = (f"{words.percent(one.win_rate)} ({words.interval(one.interval)})", words.percent(one.floor.above))
        rows.append((f"all, {named}", words.count(one.atoms), *whole, *[words.MISSING] * 3))
        for name, c in one.classes.items():
            numbers = (words.quantity(c.firings_per_10k), words.percent(c.top1_disruption), words.quantity(c.gap))
            rate = (words.percent(c.win_rate), words.MISSING)
            rows.append((f"{name}s, {named}", words.count(c.atoms), *rate, *numbers))
        for span, (n, share) in one.by_cosine.items():
            if n:
                rows.append((f"cosine {span}, {named}", words.count(n), words.percent(share), *[words.MISSING] * 4))
    head = (
        "atoms", "n", "mean win rate", "firings above rounding", "firings in 10,000 tokens",
        "top token changes on deletion", "median gap (nats)",
    )  # fmt: skip
    return Table(head, rows)


def _note(main: list[Cell]) -> str:
    said = [
        f"{words.sentence(one.named)[:-1]}: rank correlation of win rate and cosine "
        f"{words.signed(one.cosine_correlation.statistic)} (p = {words.quantity(one.cosine_correlation.p)}); registers "
        f"against bundles, Mann-Whitney p = {words.quantity(one.register_against_bundle.p)}."
        for one in main
    ]
    said.append("Gap: KL of deletion minus KL of the atom, median over firings, then atoms. Intervals resample atoms.")
    return " ".join(said)
