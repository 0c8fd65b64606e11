"""Registers, bundles and nulls: which atoms look like the writes they fire on (paper section 3.1, Fig. 2a, Table 11).

An atom's cosine is the median over its firings of its cosine to the native write. Two Gaussians are fitted to the
cosines of the alive atoms; the upper one holds the registers, the lower one the bundles. Nulls never fire.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor

from writesae.errors import InputError
from writesae.evals.common.firings import all_firings
from writesae.evals.common.stats import two_gaussians
from writesae.evals.old.configs import PartitionConfig as PartitionConfig
from writesae.evals.old.provenance import provenance
from writesae.evals.old.result import Result, count
from writesae.hosts import Host
from writesae.sae import SAE
from writesae.types import Site

FEWEST = 4
"""Alive atoms that a mixture needs."""


@dataclass(frozen=True)
class Classes:
    """One partition."""

    alive: int
    register: int
    bundle: int
    register_median: float
    """Median over the registers of their cosine."""
    bundle_median: float
    delta_bic: float
    """BIC of two Gaussians minus BIC of one: negative where two are better."""


@dataclass(frozen=True)
class PartitionSummary:
    """The partition and its two sweeps."""

    features: int
    null: int
    """Features that never fired."""
    classes: Classes
    above: dict[str, int]
    """Threshold -> atoms with at least that cosine."""
    by_k: dict[str, Classes | None]
    """k -> the partition when only the k largest coefficients of a token count; None with too few atoms."""


def partition(
    host: Host, sae: SAE, site: Site, tokens: Tensor, config: PartitionConfig | None = None
) -> Result[PartitionConfig, PartitionSummary]:
    """Class every feature on passages `[B, T]`; records: one row a feature and k (0: all firings).

    Raises InputError where fewer than four atoms fire often enough.
    """
    config = PartitionConfig() if config is None else config
    source = provenance(host, site, tokens, sae)
    fired = all_firings(host, sae, site, tokens, config.native_write)
    tables = [portraits(fired, sae.config.features, 0)]
    tables += [portraits(fired[fired.order < k], sae.config.features, k) for k in config.ks]
    records = pd.concat(tables, ignore_index=True)
    whole, reasons = records[records.k == 0], refusals(records, config)
    alive = int((whole.firings >= config.minimum).sum())
    if alive < FEWEST:
        raise InputError(
            f"only {alive} of {len(whole)} features fire at least {config.minimum} times at {site}; a partition needs "
            f"{FEWEST}: pass more text or a lower minimum"
        )
    return Result("partition", source, config, len(whole), reasons, summarise(records, config), records)


def portraits(fired: pd.DataFrame, features: int, k: int) -> pd.DataFrame:
    """One row a feature: firings, median cosine, mean coefficient."""
    by = fired.groupby("feature")
    table = pd.DataFrame(
        {"firings": by.size(), "cosine": by.cosine.median(), "coefficient": by.coefficient.mean()}
    ).reindex(range(features))
    table["firings"] = table.firings.fillna(0).astype(int)
    return table.rename_axis("feature").reset_index().assign(k=k)


def refusals(records: pd.DataFrame, config: PartitionConfig) -> dict[str, int]:
    """Reason -> how many features are not classed for it."""
    few = f"fewer than {config.minimum} firings"
    firings = records[records.k == 0].firings
    return count(["never fires" if n == 0 else few if n < config.minimum else "" for n in firings])


def labels(records: pd.DataFrame, config: PartitionConfig) -> dict[int, str]:
    """Feature -> "register" or "bundle", for those that fire often enough."""
    used = records[(records.k == 0) & (records.firings >= config.minimum)]
    upper = two_gaussians(used.cosine.to_numpy(), config.seed).upper
    return {int(f): "register" if u else "bundle" for f, u in zip(used.feature, upper, strict=True)}


def _classes(cosine: NDArray[np.float64], seed: int) -> Classes | None:
    if cosine.size < FEWEST:
        return None
    found = two_gaussians(cosine, seed)
    high, low = (float(np.median(cosine[m])) if m.any() else float("nan") for m in (found.upper, ~found.upper))
    return Classes(cosine.size, int(found.upper.sum()), int((~found.upper).sum()), high, low, found.delta_bic)


def summarise(records: pd.DataFrame, config: PartitionConfig) -> PartitionSummary:
    """The summary of the records."""
    parts = {int(table.k.iloc[0]): table for _, table in records.groupby("k")}
    cosine = {k: t.cosine[t.firings >= config.minimum].to_numpy(dtype=float) for k, t in parts.items()}
    classes = _classes(cosine[0], config.seed)
    assert classes is not None
    return PartitionSummary(
        features=len(parts[0]),
        null=int((parts[0].firings == 0).sum()),
        classes=classes,
        above={str(t): int((cosine[0] >= t).sum()) for t in config.thresholds},
        by_k={str(k): _classes(cosine[k], config.seed) for k in config.ks},
    )
