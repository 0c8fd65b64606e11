"""Do dictionaries of several seeds find the same classes and the same atoms? (Paper section 3.1, Table 16.)"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import permutations
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from writesae.errors import InputError
from writesae.evals.common.controls import normalize
from writesae.evals.old.configs import SeedsConfig as SeedsConfig
from writesae.evals.old.partition import labels, partition, refusals
from writesae.evals.old.parts import Parts
from writesae.evals.old.provenance import provenance
from writesae.evals.old.result import Result
from writesae.hosts import Host
from writesae.sae import SAE
from writesae.types import Site


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
    host: Host,
    saes: Sequence[SAE],
    site: Site,
    tokens: Tensor,
    config: SeedsConfig | None = None,
    folder: Path | None = None,
) -> Result[SeedsConfig, SeedsSummary]:
    """Compare dictionaries of one head on passages `[B, T]`; a record is an alive atom and another dictionary.

    In `folder` finished dictionaries and pairs are kept, and a run that was stopped goes on there. Raises InputError
    for fewer than two dictionaries with atoms that can be classed.
    """
    config = SeedsConfig() if config is None else config
    if len(saes) < 2:
        raise InputError(f"seeds compares dictionaries with each other: give at least 2, not {len(saes)}")
    source = provenance(host, site, tokens, *saes)
    parts = Parts.open(folder, "seeds", source, config)
    kinds, refused = dict[int, dict[int, str]](), dict[str, int]()
    for number, sae in enumerate(saes):
        try:
            table = parts.get(f"dictionary-{number}", partial(_classed, host, sae, site, tokens, config))
        except InputError as error:
            reasons = {f"dictionary {number + 1}: {error}": sae.config.features}
        else:
            kinds[number] = labels(table, config.partition)
            reasons = refusals(table, config.partition)
        for reason, n in reasons.items():
            refused[reason] = refused.get(reason, 0) + n
    if len(kinds) < 2:
        why = "; ".join(reason for reason in refused if reason.startswith("dictionary"))
        raise InputError(f"seeds compares dictionaries with each other, and {len(kinds)} can be classed: {why}")
    tables = []
    for a, b in permutations(kinds, 2):
        make = partial(_pair, saes[a], kinds[a], saes[b], kinds[b])
        tables.append(parts.get(f"pair-{a}-{b}", make).assign(dictionary=a, other=b))
    total = sum(sae.config.features for sae in saes)
    records = pd.concat(tables, ignore_index=True)
    return Result("seeds", source, config, total, refused, summarise(records, config), records)


def _classed(host: Host, sae: SAE, site: Site, tokens: Tensor, config: SeedsConfig) -> pd.DataFrame:
    return partition(host, sae, site, tokens, config.partition).records


def _pair(one: SAE, kind: dict[int, str], other: SAE, others: dict[int, str]) -> pd.DataFrame:
    """One row an alive atom of `one`: its class, and its cosines to its best and to its assigned counterpart."""
    cosine = atom_cosines(one, list(kind), other, list(others))
    taken = np.full(len(kind), np.nan)
    rows, columns = linear_sum_assignment(cosine.numpy(), maximize=True)
    taken[rows] = cosine.numpy()[rows, columns]
    best = cosine.max(1).values.tolist()
    return pd.DataFrame({"feature": list(kind), "class": list(kind.values()), "best": best, "assigned": taken})


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
