"""The substitution test atom by atom: how many atoms can stand in for writes, and which."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from writesae.evals.old.measured import Measured
from writesae.evals.old.structure import Test
from writesae.show import words
from writesae.show.figures import Interval, canvas, drawn_of, histogram, rounded, thinned, upright
from writesae.show.parts import Panel, Plot, Table

COLOUR = {"register": "var(--state)", "bundle": "var(--write)"}


@dataclass(frozen=True)
class ClassSummary:
    """The atoms of one class."""

    atoms: int
    win_rate: float | None
    firings_per_10k: float | None
    top1_disruption: float | None
    gap: float | None


@dataclass(frozen=True)
class Summary:
    """One timing."""

    atoms: int
    win_rate: float | None
    interval: Interval | None
    classes: dict[str, ClassSummary]
    by_cosine: dict[str, tuple[int, float | None]]
    register_against_bundle: Test
    cosine_correlation: Test


def build(of: Measured) -> Panel:
    """Distribution of the atoms' win rates by class, and the win rate against the cosine."""
    of.need(["protocol", "class", "feature"])
    records = of.numeric(["kl_atom", "kl_delete", "atom_cosine", "per_10k"])
    summaries = of.read(dict[str, Summary])
    plots: list[Plot] = []
    for timing in summaries:
        atoms = by_atom(records[records.protocol == timing])
        plots += [_distribution(timing, atoms), _cosine(timing, atoms)]
    return Panel(_finding(summaries), tuple(plots), _table(summaries), _note(summaries))


def by_atom(records: pd.DataFrame) -> pd.DataFrame:
    """One row an atom: its share of firings closer than deletion, how many there were, class, cosine."""
    by = records.assign(win=records.kl_atom < records.kl_delete).groupby("feature")
    return pd.DataFrame(
        {"win": by.win.mean(), "n": by.size(), "class": by["class"].first(), "cosine": by.atom_cosine.first()}
    ).reset_index()


def _finding(summaries: Mapping[str, Summary]) -> str:
    said = []
    for timing, one in summaries.items():
        classes = ", ".join(f"{name}s {words.percent(c.win_rate)} (n = {c.atoms})" for name, c in one.classes.items())
        said.append(
            f"{words.timing(timing)}, the average of {words.count(one.atoms)} atoms beats deletion at "
            f"{words.percent(one.win_rate)} of its firings (95 % interval over atoms "
            f"{words.interval(one.interval)}): {classes}"
        )
    return words.sentence("; ".join(said))


def _distribution(timing: str, atoms: pd.DataFrame) -> Plot:
    figure = canvas()
    for name, group in atoms.groupby("class"):
        colour = COLOUR.get(str(name), "var(--random)")
        histogram(figure, group.win.to_numpy(), np.linspace(0, 1, 21), str(name), colour, "win rate")
        upright(figure, float(group.win.mean()), dash="dot", colour=colour, width=2.5)
    figure.update_xaxes(title="firings closer than deletion", tickformat=".0%", range=[-0.01, 1.01])
    figure.update_yaxes(title="atoms", rangemode="tozero")
    return Plot(
        f"rates-{timing}",
        f"Win rates of atoms, {words.timing(timing)}",
        figure,
        f"{words.count(len(atoms))} atoms; dotted: the mean of each class.",
    )


def _cosine(timing: str, atoms: pd.DataFrame) -> Plot:
    figure = canvas()
    kept = atoms.iloc[thinned(len(atoms))]
    for name, group in kept.groupby("class"):
        figure.add_trace(
            go.Scatter(
                x=rounded(group.cosine.to_numpy(dtype=float)),
                y=rounded(group.win.to_numpy(dtype=float)),
                customdata=[[int(f), int(n)] for f, n in zip(group.feature, group.n, strict=True)],
                name=str(name) if name in COLOUR else "other",
                mode="markers",
                marker={"color": COLOUR.get(str(name), "var(--random)"), "size": 7, "opacity": 0.65},
                hovertemplate=(
                    "feature %{customdata[0]}, %{customdata[1]} firings<br>"
                    "cosine %{x:.3g}, win rate %{y:.1%}<extra></extra>"
                ),
            )
        )
    figure.add_hline(y=0.5, line={"color": "var(--ink-soft)", "width": 1.25, "dash": "dash"})
    figure.update_xaxes(title="median cosine to the native write")
    figure.update_yaxes(title="win rate", tickformat=".0%", range=[-0.04, 1.04])
    caption = drawn_of(len(kept), len(atoms), "atoms") + " Dashed: one half."
    return Plot(f"cosine-{timing}", "Do atoms that look like writes work better?", figure, caption)


def _table(summaries: Mapping[str, Summary]) -> Table:
    rows: list[tuple[str, ...]] = []
    for timing, one in summaries.items():
        for name, c in one.classes.items():
            numbers = (
                words.percent(c.win_rate),
                words.quantity(c.firings_per_10k),
                words.percent(c.top1_disruption),
                words.quantity(c.gap),
            )
            rows.append((f"{name}s, {words.timing(timing)}", words.count(c.atoms), *numbers))
        for span, (n, rate) in one.by_cosine.items():
            if n:
                rows.append(
                    (
                        f"cosine {span}, {words.timing(timing)}",
                        words.count(n),
                        words.percent(rate),
                        *[words.MISSING] * 3,
                    )
                )
    head = (
        "atoms",
        "n",
        "mean win rate",
        "firings in 10,000 tokens",
        "top token changes on deletion",
        "median gap (nats)",
    )
    return Table(head, rows)


def _note(summaries: Mapping[str, Summary]) -> str:
    said = []
    for timing, one in summaries.items():
        said.append(
            f"{words.timing(timing).capitalize()}: rank correlation of win rate and cosine "
            f"{words.signed(one.cosine_correlation.statistic)} (p = {words.quantity(one.cosine_correlation.p)}); "
            "registers "
            f"against bundles, Mann-Whitney p = {words.quantity(one.register_against_bundle.p)}. "
            "Gap: KL of deletion minus KL of the atom, median over firings, then atoms."
        )
    return " ".join(said)
