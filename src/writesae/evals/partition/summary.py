"""What the records say, for every form of the write."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from writesae.evals.common.classes import Classes, classes
from writesae.evals.partition.config import PartitionConfig

COLUMNS = {
    "feature": "feature",
    "native_write": "the matrix that the atom is compared with",
    "k": "only the so many largest coefficients of a token count as firings; 0: all",
    "firings": "tokens at which it fires",
    "cosine": "median over these of the atom's cosine to the native write",
    "coefficient": "mean coefficient",
}


@dataclass(frozen=True)
class Partition:
    """One form of the write: the partition and its two sweeps."""

    native_write: str
    classes: Classes
    above: dict[str, int]
    """Threshold -> atoms with at least that cosine."""
    by_k: dict[str, Classes | None]
    """k -> the partition when only the k largest coefficients of a token count; None with too few atoms."""


@dataclass(frozen=True)
class Summary:
    """Every form of the write."""

    features: int
    null: int
    """Features that never fired."""
    partitions: tuple[Partition, ...]


def summarise(tables: Mapping[str, pd.DataFrame], config: PartitionConfig) -> Summary:
    """The summary of the records."""
    records = tables["records"]
    forms = list(records.native_write.unique())
    whole = records[(records.k == 0) & (records.native_write == forms[0])]
    found = tuple(_partition(form, records[records.native_write == form], config) for form in forms)
    return Summary(len(whole), int((whole.firings == 0).sum()), found)


def _partition(form: str, records: pd.DataFrame, config: PartitionConfig) -> Partition:
    used = records[records.firings >= config.minimum]
    cosine = {k: used[used.k == k].cosine.to_numpy(dtype=float) for k in (0, *config.ks)}
    all_of_them = classes(cosine[0], config.seed)
    assert all_of_them is not None
    return Partition(
        form,
        all_of_them,
        {str(t): int((cosine[0] >= t).sum()) for t in config.thresholds},
        {str(k): classes(cosine[k], config.seed) for k in config.ks},
    )
