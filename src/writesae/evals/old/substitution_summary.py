"""What the records of a substitution test say: functions of the records of one protocol, and of nothing else."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from writesae.evals.common.stats import Interval, Test, cliffs_delta, clustered, paired_delta, wilcoxon, wilson
from writesae.evals.old.substitution_config import CONDITIONS


@dataclass(frozen=True)
class SubstitutionSummary:
    """What one protocol says."""

    attempted: int
    refused: dict[str, int]
    """Reason -> how many places were not scored for it. attempted = n + sum(refused)."""
    n: int
    win_rate: float
    """Share of firings where the atom at its coefficient has a strictly smaller KL than deleting the write."""
    interval: Interval
    """Wilson."""
    interval_clustered: Interval
    """Bootstrap over passages."""
    win_rate_norm: float
    """The same for the atom at the native write's norm."""
    interval_norm: Interval
    strict_chain: float
    """Share with KL_atom < KL_delete < KL_random."""
    median_kl: dict[str, float]
    """Condition -> median KL in nats, the mean over the scored positions."""
    median_cosine: float
    """Cosine of the atom to the native write at its firings (of all heads together where several are edited)."""


@dataclass(frozen=True)
class SubstitutionDetail:
    """What the summary leaves out, of one protocol; like it a function of the records alone."""

    interval_by_feature: Interval
    """Of the win rate, bootstrap over features (over combinations of features where several heads are edited)."""
    wilcoxon: Test
    """Signed ranks of KL_atom against KL_delete, paired by firing."""
    paired_delta: float
    """Share of firings where the atom is closer than deletion minus the share where it is farther."""
    cliffs_delta: float
    """The same over all pairs of firings, KL_delete against KL_atom."""
    failures_by_quartile: tuple[float, float, float, float]
    """Share of firings where the atom does not win, by quartile of KL_delete, smallest effect first."""
    wins_against: dict[str, float]
    """Condition -> share of firings where the atom at its coefficient has a strictly smaller KL."""
    median_kl: dict[str, float]
    """Condition -> median KL in nats, controls included."""
    median_kl_by_step: dict[str, tuple[float, ...]]
    """The same at each scored position, the first one first."""
    win_rate_by_step: tuple[float, ...]
    """The win rate at each scored position."""
    top1_disruption: dict[str, float]
    """Condition -> share of firings where the most likely token at the first scored position changes."""


def step_column(condition: str, step: int) -> str:
    """The record column of a condition's KL at one scored position, counted from 1; kept where there are several."""
    return f"step{step}_kl_{condition}"


def summarise(records: pd.DataFrame, refused: dict[str, int], seed: int) -> SubstitutionSummary:
    """The summary of one protocol's records; nothing else enters it."""
    atom, delete, random = (records[f"kl_{name}"].to_numpy() for name in ("atom", "delete", "random"))
    wins, wins_norm = atom < delete, records.kl_atom_norm.to_numpy() < delete
    n = len(records)
    return SubstitutionSummary(
        attempted=n + sum(refused.values()),
        refused=refused,
        n=n,
        win_rate=float(wins.mean()),
        interval=wilson(int(wins.sum()), n),
        interval_clustered=clustered(wins, records.passage.to_numpy(), seed),
        win_rate_norm=float(wins_norm.mean()),
        interval_norm=wilson(int(wins_norm.sum()), n),
        strict_chain=float((wins & (delete < random)).mean()),
        median_kl={name: float(np.median(records[f"kl_{name}"])) for name in CONDITIONS},
        median_cosine=float(np.median(records.cosine)),
    )


def detail(records: pd.DataFrame, seed: int) -> SubstitutionDetail:
    """Effect sizes, paired tests, controls and the curve over positions of one protocol's records."""
    names = [str(c).removeprefix("kl_") for c in records.columns if str(c).startswith("kl_")]
    kl = {name: records[f"kl_{name}"].to_numpy() for name in names}
    steps = {name: _by_step(records, name) for name in names}
    wins = kl["atom"] < kl["delete"]
    edges = np.quantile(kl["delete"], [0.25, 0.5, 0.75])
    quartile = np.searchsorted(edges, kl["delete"], side="left")
    failed = [float(1 - wins[quartile == q].mean()) if (quartile == q).any() else float("nan") for q in range(4)]
    features = [str(c) for c in records.columns if c == "feature" or str(c).startswith("feature_")]
    return SubstitutionDetail(
        interval_by_feature=clustered(wins, records.groupby(features).ngroup().to_numpy(), seed),
        wilcoxon=wilcoxon(kl["atom"], kl["delete"]),
        paired_delta=paired_delta(kl["delete"], kl["atom"]),
        cliffs_delta=cliffs_delta(kl["delete"], kl["atom"]),
        failures_by_quartile=(failed[0], failed[1], failed[2], failed[3]),
        wins_against={name: float((kl["atom"] < x).mean()) for name, x in kl.items() if name != "atom"},
        median_kl={name: float(np.median(x)) for name, x in kl.items()},
        median_kl_by_step={name: tuple(float(np.median(x)) for x in each) for name, each in steps.items()},
        win_rate_by_step=tuple(
            float((atom < delete).mean()) for atom, delete in zip(steps["atom"], steps["delete"], strict=True)
        ),
        top1_disruption={name: float(records[f"top1_{name}"].mean()) for name in names},
    )


def _by_step(records: pd.DataFrame, condition: str) -> list[np.ndarray[tuple[int], np.dtype[np.float64]]]:
    """A condition's KL at each scored position, all firings each."""
    found, step = [], 1
    while step_column(condition, step) in records.columns:
        found.append(records[step_column(condition, step)].to_numpy())
        step += 1
    return found or [records[f"kl_{condition}"].to_numpy()]
