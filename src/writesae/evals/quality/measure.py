"""One pass over the text; each passage leaves its sums, of which everything else is made."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from writesae.causal.writes import HeadWrites
from writesae.evals.common.firings import runs
from writesae.evals.common.pieces import Keep, Measured
from writesae.evals.common.result import count
from writesae.evals.common.subject import Subject
from writesae.evals.quality import QualityConfig
from writesae.evals.quality.summary import MORE
from writesae.recurrence.written import Written, rebuild_states
from writesae.sae import SAE
from writesae.types import Target

BY_FEATURE = ["feature", "firings", "sum", "largest"]
"""What a passage says of each feature that fires in it, as lists."""


def measure(subject: Subject, config: QualityConfig, keep: Keep) -> Measured:
    """A record is a feature, a row of the table `passages` a passage."""
    host, site, sae, tokens = subject.host, subject.site, subject.sae, subject.tokens

    def piece(begin: int, end: int) -> pd.DataFrame:
        rows = []
        for first, _, writes in runs(host, site, tokens[begin:end]):
            for passage in range(len(writes.value)):
                one = slice(passage, passage + 1)
                written = Written(*(None if x is None else x[one] for x in writes.written))  # type: ignore[arg-type]
                rows.append({"passage": begin + first + passage, **sums(HeadWrites(written, writes.value[one]), sae)})
        return pd.DataFrame(rows)

    passages = keep.by_passages(len(tokens), piece)
    total = np.stack(passages.total.tolist())
    mean = total.sum(0) / tokens.numel()
    passages["variance"] = passages.norm - 2 * total @ mean + passages.tokens * (mean @ mean)
    fired = passages[BY_FEATURE].explode(BY_FEATURE).dropna().astype(float).astype({"feature": int, "firings": int})
    by = fired.groupby("feature")
    records = by.firings.sum().reindex(range(sae.config.features), fill_value=0).rename_axis("feature").reset_index()
    records["frequency"] = records.firings / tokens.numel()
    records["coefficient"] = (by["sum"].sum() / by.firings.sum()).reindex(records.feature, fill_value=0.0).to_numpy()
    records["largest"] = by.largest.max().reindex(records.feature, fill_value=0.0).to_numpy()
    reasons = count("" if n else "never fires" for n in records.firings)
    return Measured(records, len(records), reasons, {"passages": passages[list(MORE["passages"])]})


def modelled(writes: HeadWrites, target: Target) -> Tensor:
    """The matrices that a dictionary of this target reconstructs, `[B, T, K, V]`."""
    if target == "state":
        return rebuild_states(writes.written)
    value = writes.value if target == "write-value" else writes.written.update
    return writes.written.key.unsqueeze(-1) * value.unsqueeze(-2)


def sums(writes: HeadWrites, sae: SAE) -> dict[str, object]:
    """What one passage leaves."""
    matrices, codes = modelled(writes, sae.config.target), sae.encode_written(writes.written)
    used = codes.value > 0
    index, value = codes.index[used].cpu(), codes.value[used].double().cpu()
    feature, where, firings = torch.unique(index, return_inverse=True, return_counts=True)
    amount, largest = torch.zeros(2, len(feature), dtype=torch.float64)
    return {
        "tokens": matrices.shape[1],
        "entries": matrices.numel(),
        "active": len(index),
        "error": float((matrices - sae.decode(codes)).double().square().sum()),
        "norm": float(matrices.double().square().sum()),
        "total": matrices.double().sum((0, 1)).flatten().cpu().numpy(),
        "feature": feature.numpy(),
        "firings": firings.numpy(),
        "sum": amount.index_add_(0, where, value).numpy(),
        "largest": largest.scatter_reduce_(0, where, value, "amax").numpy(),
    }
