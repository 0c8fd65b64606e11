"""A feature's separation is the probability that its coefficient at a random token of the class exceeds that at a
random other token (AUROC, ties counted half); its p value is Mann-Whitney's, Holm-corrected over features that fire."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from writesae.errors import InputError
from writesae.evals.boundary import BoundaryConfig
from writesae.evals.common.firings import runs
from writesae.evals.common.patterns import matching
from writesae.evals.common.pieces import Keep, Measured
from writesae.evals.common.result import count
from writesae.evals.common.stats import holm, mann_whitney
from writesae.evals.common.subject import Subject


def measure(subject: Subject, config: BoundaryConfig, keep: Keep) -> Measured:
    """A record is a feature. Raises InputError for a pattern that is no regular expression, a class without tokens or
    with all of them, or a silent dictionary."""
    sae, site = subject.sae, subject.site
    inside = matching(subject.host, subject.tokens, config.pattern)
    dense = [
        writes.encode(sae).dense(sae.config.features).flatten(0, 1).cpu()
        for _, _, writes in runs(subject.host, site, subject.tokens)
    ]
    codes, member = torch.cat(dense).numpy(), inside.flatten().numpy()
    rows = []
    for feature in range(sae.config.features):
        values = codes[:, feature]
        test = mann_whitney(values[member], values[~member]) if (values > 0).any() else None
        auroc = float("nan") if test is None else test.statistic / (member.sum() * (~member).sum())
        numbers = {"auroc": auroc, "p_raw": float("nan") if test is None else test.p}
        fired = {"firings_inside": int((values[member] > 0).sum()), "firings": int((values > 0).sum())}
        rows.append({"feature": feature, **fired, **numbers})
    records = pd.DataFrame(rows).assign(inside=int(member.sum()), outside=int((~member).sum()))
    used = records.p_raw.notna()
    if not used.any():
        raise InputError(f"no feature of the dictionary fires at {site} in {len(subject.tokens)} passages")
    records["p"] = np.nan
    records.loc[used, "p"] = holm(records.p_raw[used])
    return Measured(records, len(records), count("" if u else "never fires" for u in used))
