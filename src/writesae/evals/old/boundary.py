"""Features that separate a class of tokens, such as ends of sentences, from all others (paper section 4, Table 4).

A feature's separation is the probability that its coefficient at a random token of the class exceeds that at a random
other token (AUROC, ties counted half); its p value is Mann-Whitney's, Holm-corrected over the features that fire.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from writesae.errors import InputError
from writesae.evals.common.firings import runs
from writesae.evals.common.stats import holm, mann_whitney
from writesae.evals.old.configs import BoundaryConfig as BoundaryConfig
from writesae.evals.old.provenance import provenance
from writesae.evals.old.result import Result, count
from writesae.hosts import Host
from writesae.sae import SAE
from writesae.types import Site


@dataclass(frozen=True)
class BoundaryFeature:
    """One feature."""

    feature: int
    auroc: float
    p: float
    """Corrected."""


@dataclass(frozen=True)
class BoundarySummary:
    """Over the features that fire."""

    inside: int
    """Tokens of the class."""
    outside: int
    separating: int
    """Features that fire more within the class, significantly."""
    best: tuple[BoundaryFeature, ...]
    """The most separating ones first."""


@torch.no_grad()
def boundary(
    host: Host, sae: SAE, site: Site, tokens: Tensor, config: BoundaryConfig | None = None
) -> Result[BoundaryConfig, BoundarySummary]:
    """Measure on passages `[B, T]`; a record is a feature. Raises InputError for a pattern that is no regular
    expression, a class without tokens or with all of them, or a silent dictionary."""
    config = BoundaryConfig() if config is None else config
    source = provenance(host, site, tokens, sae)
    inside = matching(host, tokens, config.pattern)
    dense = []
    for _, _, writes in runs(host, site, tokens):
        dense.append(sae.encode_written(writes.written).dense(sae.config.features).flatten(0, 1).cpu())
    codes = torch.cat(dense).numpy()
    member = inside.flatten().numpy()
    rows = []
    for feature in range(sae.config.features):
        values = codes[:, feature]
        fires = bool((values > 0).any())
        test = mann_whitney(values[member], values[~member]) if fires else None
        auroc = float("nan") if test is None else test.statistic / (member.sum() * (~member).sum())
        numbers = {"auroc": auroc, "p_raw": float("nan") if test is None else test.p}
        fired = {"firings_inside": int((values[member] > 0).sum()), "firings": int((values > 0).sum())}
        rows.append({"feature": feature, **fired, **numbers})
    records = pd.DataFrame(rows).assign(inside=int(member.sum()), outside=int((~member).sum()))
    used = records.p_raw.notna()
    if not used.any():
        raise InputError(f"no feature of the dictionary fires at {site} in {len(tokens)} passages")
    records["p"] = np.nan
    records.loc[used, "p"] = holm(records.p_raw[used])
    refused = count(["" if u else "never fires" for u in used])
    return Result("boundary", source, config, len(records), refused, summarise(records, config), records)


def matching(host: Host, tokens: Tensor, pattern: str) -> Tensor:
    """Which tokens are of the class, bool `[B, T]`."""
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise InputError(f"the pattern {pattern!r} is no regular expression: {error}") from None
    wanted = [int(t) for t in torch.unique(tokens) if expression.search(host.text([int(t)]))]
    inside = torch.isin(tokens, torch.tensor(wanted, dtype=tokens.dtype))
    if not inside.any() or inside.all():
        raise InputError(f"{int(inside.sum())} of {inside.numel()} tokens match {pattern!r}: both kinds are needed")
    return inside


def summarise(records: pd.DataFrame, config: BoundaryConfig) -> BoundarySummary:
    """The summary of the records."""
    fired = records[records.p.notna()]
    best = fired.sort_values(["auroc", "feature"], ascending=[False, True]).head(config.top).to_dict("records")
    return BoundarySummary(
        inside=int(records.inside.iloc[0]),
        outside=int(records.outside.iloc[0]),
        separating=int(((fired.auroc > 0.5) & (fired.p < config.alpha)).sum()),
        best=tuple(BoundaryFeature(int(r["feature"]), float(r["auroc"]), float(r["p"])) for r in best),
    )
