"""What the records say, for every way of measuring. The unit is the atom: means and intervals are over atoms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd

from writesae.evals.common.classes import CLASSES
from writesae.evals.common.conditions import cells
from writesae.evals.common.floor import Floor, floor_of
from writesae.evals.common.stats import Interval, Test, clustered, mann_whitney, spearman
from writesae.evals.population.config import PopulationConfig
from writesae.evals.substitution.summary import COLUMNS as SCORED

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
class Cell:
    """One way of measuring."""

    timing: str
    native_write: str
    amplitude: str
    direction: str
    atoms: int
    win_rate: float
    """Mean over atoms."""
    interval: Interval
    """Of it, resampling atoms."""
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


@dataclass(frozen=True)
class Summary:
    """Every way of measuring, in the order in which they were asked for."""

    cells: tuple[Cell, ...]


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
    found = cells(tables["records"])
    return Summary(tuple(_cell(key, own, config) for key, own in found))


def _cell(key: tuple[str, ...], records: pd.DataFrame, config: PopulationConfig) -> Cell:
    atoms = by_atom(records)
    groups = {name: atoms[atoms["class"] == name] for name in CLASSES}
    bins = {}
    for low, high in pairwise(config.bins):
        inside = atoms[(atoms.cosine >= low) & (atoms.cosine < high)]
        bins[f"{low} to {high}"] = (len(inside), float(inside.win_rate.mean()))
    wins = records.kl_atom < records.kl_delete
    floor = floor_of(wins, records.kl_delete, records["floor"], records.feature, config.seed)
    timing, native_write, amplitude, direction = key
    return Cell(
        timing,
        native_write,
        amplitude,
        direction,
        atoms=len(atoms),
        win_rate=float(atoms.win_rate.mean()),
        interval=clustered(atoms.win_rate.to_numpy(), atoms.index.to_numpy(), config.seed),
        floor=floor,
        deciles=tuple(float(q) for q in np.quantile(atoms.win_rate, np.linspace(0, 1, 11))),
        classes={
            name: ClassSummary(
                len(group),
                float(group.win_rate.mean()),
                float(group.per_10k.median()),
                float(group.top1_disruption.mean()),
                float(group.gap.median()),
            )
            for name, group in groups.items()
        },
        by_cosine=bins,
        register_against_bundle=mann_whitney(*(groups[name].win_rate.to_numpy() for name in CLASSES)),
        cosine_correlation=spearman(atoms.win_rate.to_numpy(), atoms.cosine.to_numpy()),
    )
