"""What the records say, in numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from writesae.evals.common.cells import Cells, ScoredCell, cells
from writesae.evals.common.conditions import CELL, RANDOM, common, conditions, step_column
from writesae.evals.common.floor import Floor, floor_of
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
from writesae.evals.substitution import PRESETS, SubstitutionConfig

COLUMNS = common("passage", "position", "token", "timing") | {
    "context?": "the text up to and including the token, where the host has a tokenizer",
    "token_text?": "the token's text",
    "feature*": "the feature with the largest coefficient; `feature_SITE` of each head where several are edited",
    "coefficient*": "its coefficient in the state (or code); by increment, how much the write raises it",
    "cosine*": "cosine of the atom to the native write, of all heads together and of each",
    "write_norm*": "Frobenius norm of the native write",
    "share*": "the same over the norm of the head's native state after the token",
    "native_write": "which matrix counts as the write",
    "reading": "which feature stands in its place: the largest in the state, the one that the write raises most, whose "
    "coefficient is how much (increment), or of a dictionary of writes the largest in its code (write)",
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
    features: int
    """Features that stand at them (combinations of features where several heads are edited)."""
    wins: Share
    """Firings where the atom has a strictly smaller KL than deletion. Here and below, intervals resample what was
    drawn: passages, or the features that were chosen."""
    by_passage: Interval
    """The same share, resampling passages."""
    by_feature: Interval
    """The same share, resampling features."""
    floor: Floor
    """The same among firings where the effect of deletion stands above rounding, and what they decide."""
    wins_against: dict[str, Share]
    """Every other condition -> share of firings where the atom has a strictly smaller KL."""
    strict_chain: dict[str, float]
    """What is drawn at random (a matrix at some size, another atom) -> share with KL of atom < deletion < that."""
    median_kl: dict[str, float]
    """Condition -> median KL in nats a token."""
    top1: dict[str, float]
    """Condition -> share of firings where the most likely token at the first scored position changes."""
    cosine: float
    """Median cosine of the atom to the native write."""
    share: float
    """Median norm of the native write over that of the state after the token."""
    wilcoxon: Test
    """Signed ranks of KL of atom against deletion, on the means of what was drawn (passages, features)."""
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


def accounts(cell: Cell) -> dict[str, str]:
    """The published accounts of the test that measure so, and what each calls random."""
    found = {name: preset for name, preset in PRESETS.items() if name != "grid"}
    own = {f"{name}s": (getattr(cell, name),) for name in CELL}
    return {n: p.controls[0] for n, p in found.items() if all(getattr(p, name) == x for name, x in own.items())}


def summarise(tables: Mapping[str, pd.DataFrame], config: SubstitutionConfig) -> Summary:
    """The summary of the records."""
    return Cells(tuple(_cell(how, table, config) for how, table in cells(tables["records"])))


def _cell(how: dict[str, Any], records: pd.DataFrame, config: SubstitutionConfig) -> Cell:
    names = conditions(records)
    kl = {name: records[f"kl_{name}"].to_numpy() for name in names}
    steps = {name: _by_step(records, name) for name in names}
    atom, delete = kl["atom"], kl["delete"]
    standing = [str(c) for c in records.columns if c == "feature" or str(c).startswith("feature_")]
    passage, feature = records.passage.to_numpy(), records.groupby(standing).ngroup().to_numpy()
    unit = feature if config.choose == "features" else passage
    wins, seed = atom < delete, config.seed
    quartile = np.searchsorted(np.quantile(delete, [0.25, 0.5, 0.75]), delete, side="left")
    failed = [float(1 - wins[quartile == q].mean()) if (quartile == q).any() else float("nan") for q in range(4)]
    return Cell(
        **how,
        passages=len(np.unique(passage)),
        features=len(np.unique(feature)),
        wins=share(wins, unit, seed),
        by_passage=clustered(wins, passage, seed),
        by_feature=clustered(wins, feature, seed),
        floor=floor_of(wins, delete, records.floor.to_numpy(), unit, seed),
        wins_against={n: share(atom < x, unit, seed) for n, x in kl.items() if n not in ("atom", "delete")},
        strict_chain={name: float((wins & (delete < kl[name])).mean()) for name in RANDOM if name in kl},
        median_kl={name: float(np.median(x)) for name, x in kl.items()},
        top1={name: float(records[f"top1_{name}"].mean()) for name in names},
        cosine=float(np.median(records.cosine)),
        share=float(np.median(records.share)),
        wilcoxon=wilcoxon(cluster_means(atom, unit), cluster_means(delete, unit)),
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
