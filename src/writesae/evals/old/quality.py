"""How well a dictionary reconstructs, and how its features share the work: no edit, one pass over the text."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from writesae.causal.writes import HeadWrites
from writesae.evals.common.firings import runs
from writesae.evals.common.stats import gini
from writesae.evals.old.configs import QualityConfig as QualityConfig
from writesae.evals.old.provenance import provenance
from writesae.evals.old.result import Result, count
from writesae.hosts import Host
from writesae.recurrence.written import Written, rebuild_states
from writesae.sae import SAE
from writesae.types import Site, Target


@dataclass(frozen=True)
class QualitySummary:
    """Quality on one text."""

    tokens: int
    explained_variance: float
    """`1 - sum |X - X^|^2 / sum |X - mean X|^2`."""
    mse: float
    """Mean squared error an entry."""
    l0: float
    """Mean active features a token."""
    alive: int
    dead: int
    """Features that never fire."""
    dense: int
    """Features that fire at too many tokens."""
    gini: float
    """Inequality of the alive features' firing counts."""
    histogram: tuple[int, ...]
    """Alive features by frequency, one count a bin of the configuration's edges."""


def modelled(writes: HeadWrites, target: Target) -> Tensor:
    """The matrices that a dictionary of this target reconstructs, `[B, T, K, V]`."""
    if target == "state":
        return rebuild_states(writes.written)
    value = writes.value if target == "write-value" else writes.written.update
    return writes.written.key.unsqueeze(-1) * value.unsqueeze(-2)


def _each(writes: HeadWrites, passage: int) -> HeadWrites:
    one = slice(passage, passage + 1)
    written = Written(*(None if x is None else x[one] for x in writes.written))  # type: ignore[arg-type]
    return HeadWrites(written, writes.value[one])


@torch.no_grad()
def quality(
    host: Host, sae: SAE, site: Site, tokens: Tensor, config: QualityConfig | None = None
) -> Result[QualityConfig, QualitySummary]:
    """Measure on passages `[B, T]`; records: one row a feature, and the table `passages` with one row a passage."""
    config = QualityConfig() if config is None else config
    source = provenance(host, site, tokens, sae)
    fired = torch.zeros(sae.config.features, dtype=torch.long)
    mass = torch.zeros(sae.config.features, dtype=torch.float64)
    largest = torch.zeros(sae.config.features)
    total = torch.zeros(sae.config.d_k, sae.config.d_v, dtype=torch.float64)
    for _, _, writes in runs(host, site, tokens):
        for passage in range(len(writes.value)):
            total += modelled(_each(writes, passage), sae.config.target)[0].sum(0).double().cpu()
    mean, rows = total / tokens.numel(), []
    for begin, _, writes in runs(host, site, tokens):
        for passage in range(len(writes.value)):
            one = _each(writes, passage)
            matrices, codes = modelled(one, sae.config.target), sae.encode_written(one.written)
            used = codes.value > 0
            fired += torch.bincount(codes.index[used].cpu(), minlength=len(fired))
            index, value = codes.index.flatten().cpu(), codes.value.flatten().cpu()
            mass.index_add_(0, index, value.double())
            largest.scatter_reduce_(0, index, value.float(), "amax")
            rows.append(
                {
                    "passage": begin + passage,
                    "tokens": matrices.shape[1],
                    "entries": matrices.numel(),
                    "active": int(used.sum()),
                    "error": float((matrices - sae.decode(codes)).double().square().sum()),
                    "norm": float(matrices.double().square().sum()),
                    "variance": float((matrices.double() - mean.to(matrices.device)).square().sum()),
                }
            )
    records = pd.DataFrame(
        {
            "feature": range(sae.config.features),
            "firings": fired.numpy(),
            "frequency": fired.numpy() / tokens.numel(),
            "coefficient": (mass / fired.clamp_min(1)).numpy(),
            "largest": largest.numpy(),
        }
    )
    more = {"passages": pd.DataFrame(rows)}
    reasons = count(["never fires" if n == 0 else "" for n in records.firings])
    summary = summarise(records, more["passages"], config)
    return Result("quality", source, config, len(records), reasons, summary, records, more)


def summarise(records: pd.DataFrame, passages: pd.DataFrame, config: QualityConfig) -> QualitySummary:
    """The summary of the two tables."""
    tokens = int(passages.tokens.sum())
    firings = records.firings.to_numpy()
    frequency, alive = firings / tokens, firings > 0
    variance = float(passages.variance.sum())
    return QualitySummary(
        tokens=tokens,
        explained_variance=1 - float(passages.error.sum()) / variance if variance > 0 else float("nan"),
        mse=float(passages.error.sum() / passages.entries.sum()),
        l0=float(passages.active.sum() / tokens),
        alive=int(alive.sum()),
        dead=int((~alive).sum()),
        dense=int((frequency > config.dense).sum()),
        gini=gini(firings[alive]),
        histogram=tuple(int(n) for n in np.histogram(frequency[alive], config.edges)[0]),
    )
