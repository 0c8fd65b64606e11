"""Do dictionaries of several seeds find the same classes and the same atoms? (Paper section 3.1, Table 16.)"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from writesae.errors import InputError
from writesae.evals.controls import normalize
from writesae.evals.partition import PartitionConfig, labels, partition
from writesae.evals.provenance import provenance
from writesae.evals.result import Result, count
from writesae.hosts import Host
from writesae.sae import SAE
from writesae.types import Site


@dataclass(frozen=True)
class SeedsConfig:
    """How atoms are classed and matched."""

    partition: PartitionConfig = field(default_factory=PartitionConfig)
    match: float = 0.9
    """Absolute cosine above which two atoms are the same."""


@dataclass(frozen=True)
class SeedsSummary:
    """Over all dictionaries."""

    counts: dict[str, tuple[int, ...]]
    """Class -> atoms in each dictionary ("alive" is all of them)."""
    variation: dict[str, float]
    """Class -> standard deviation of the counts over their mean."""
    matched: float
    """Share of alive atoms whose best counterpart in another dictionary is the same, mean over ordered pairs."""
    best: float
    """Median over atoms of the best absolute cosine to another dictionary's atoms."""
    assigned: float
    """Mean absolute cosine under the best one-to-one assignment, over pairs."""


def seeds(
    host: Host, saes: Sequence[SAE], site: Site, tokens: Tensor, config: SeedsConfig | None = None
) -> Result[SeedsConfig, SeedsSummary]:
    """Compare dictionaries of one head on passages `[B, T]`; a record is an alive atom and another dictionary.

    Raises InputError for fewer than two dictionaries.
    """
    config = SeedsConfig() if config is None else config
    if len(saes) < 2:
        raise InputError(f"seeds compares dictionaries with each other: give at least 2, not {len(saes)}")
    source = provenance(host, site, tokens, *saes)
    kinds, reasons, total = [], [], 0
    for sae in saes:
        one = partition(host, sae, site, tokens, config.partition)
        kinds.append(labels(one.records, config.partition))
        total += one.attempted
        reasons += [reason for reason, n in one.refused.items() for _ in range(n)]
    tables = []
    for a, kind in enumerate(kinds):
        for b, other in enumerate(kinds):
            if a != b:
                cosine = atom_cosines(saes[a], list(kind), saes[b], list(other))
                best = cosine.max(1).values.tolist()
                taken = np.full(len(kind), np.nan)
                rows, columns = linear_sum_assignment(cosine.numpy(), maximize=True)
                taken[rows] = cosine.numpy()[rows, columns]
                table = {"dictionary": a, "other": b, "feature": list(kind), "class": list(kind.values())}
                tables.append(pd.DataFrame(table | {"best": best, "assigned": taken}))
    records = pd.concat(tables, ignore_index=True)
    return Result("seeds", source, config, total, count(reasons), summarise(records, config), records)


def atom_cosines(one: SAE, features: list[int], other: SAE, others: list[int]) -> Tensor:
    """Absolute cosines between rank-1 atoms, `[features, others]`: `|v.v'| |w.w'|` of unit sides."""
    a, b = one.atoms(), other.atoms()
    keys, values = (normalize(x[features]) @ normalize(y[others]).T for x, y in ((a.v, b.v), (a.w, b.w)))
    return torch.abs(keys * values).cpu()


def summarise(records: pd.DataFrame, config: SeedsConfig) -> SeedsSummary:
    """The summary of the records."""
    names = sorted(records.dictionary.unique())
    first = {a: records[(records.dictionary == a) & (records.other == names[int(a == names[0])])] for a in names}
    counts = {"alive": tuple(len(first[a]) for a in names)}
    for kind in ("register", "bundle"):
        counts[kind] = tuple(int((first[a]["class"] == kind).sum()) for a in names)
    same = records.assign(same=records.best > config.match).groupby(["dictionary", "other"]).same.mean()
    return SeedsSummary(
        counts=counts,
        variation={k: float(np.std(n, ddof=1) / np.mean(n)) if any(n) else float("nan") for k, n in counts.items()},
        matched=float(same.mean()),
        best=float(records.best.median()),
        assigned=float(records.assigned.mean()),
    )
