"""A feature's separation is the probability that its coefficient at a random token of the class exceeds that at a
random other token (AUROC, ties counted half). Its p value is of signed ranks over the passages that hold tokens of both
kinds, of the difference of the two kinds' mean ranks: tokens of one passage are not independent. Holm-corrected over
features that fire."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata

from writesae.causal.identity import check_reading
from writesae.errors import InputError
from writesae.evals.boundary import BoundaryConfig
from writesae.evals.common.firings import runs
from writesae.evals.common.forms import native_writes
from writesae.evals.common.patterns import matching
from writesae.evals.common.pieces import Keep, Measured
from writesae.evals.common.result import count
from writesae.evals.common.stats import holm, moved
from writesae.evals.common.subject import Subject

FEATURES = 256
"""Ranked at a time."""


def measure(subject: Subject, config: BoundaryConfig, keep: Keep) -> Measured:
    """A record is a feature. Raises InputError for a pattern that is no regular expression, a class without tokens or
    with all of them, or a silent dictionary."""
    host, sae, site = subject.host, subject.sae, subject.site
    check_reading(config.reading, [sae])
    form = native_writes(host, (site,), subject.tokens, ())[0]
    inside = matching(host, subject.tokens, config.pattern)
    dense = [
        writes.read(sae, config.reading, form).dense(sae.config.features).cpu()
        for _, _, writes in runs(host, site, subject.tokens)
    ]
    codes, member = torch.cat(dense).numpy(), inside.numpy()
    parts = [separation(codes[..., start : start + FEATURES], member) for start in range(0, codes.shape[-1], FEATURES)]
    records = pd.concat(parts, ignore_index=True).rename_axis("feature").reset_index()
    records = records.assign(inside=int(member.sum()), outside=int((~member).sum()))
    used = records.p_raw.notna()
    if not used.any():
        raise InputError(f"no feature of the dictionary fires at {site} in {len(subject.tokens)} passages")
    records["p"] = np.nan
    records.loc[used, "p"] = holm(records.p_raw[used])
    return Measured(records, len(records), count("" if u else "never fires" for u in used))


def separation(codes: NDArray[np.float32], member: NDArray[np.bool_]) -> pd.DataFrame:
    """A row a feature, from coefficients `[B, T, F]` and tokens of the class `[B, T]`."""
    ranks, of_class = rankdata(codes.reshape(member.size, -1), axis=0), int(member.sum())
    above = ranks[member.flatten()].mean(0) - (of_class + 1) / 2  # other tokens below one of the class
    rows = ranks.reshape(codes.shape)
    both = np.flatnonzero(member.any(1) & ~member.all(1))
    gaps = np.array([rows[b][member[b]].mean(0) - rows[b][~member[b]].mean(0) for b in both]).reshape(len(both), -1)
    fires = codes > 0
    found = pd.DataFrame({"firings_inside": fires[member].sum(0), "firings": fires.sum((0, 1))})
    found["auroc"] = above / (member.size - of_class)
    found["p_raw"] = [moved(gaps[:, feature], both) if len(both) else 1.0 for feature in found.index]
    found.loc[found.firings == 0, ["auroc", "p_raw"]] = np.nan
    return found
