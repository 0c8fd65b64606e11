"""What the records say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
import pandas as pd

from writesae.evals.common.floor import above
from writesae.evals.spectrum.config import SpectrumConfig
from writesae.types import NativeWrite, Site

MEMORY = 0.5
"""A head remembers where a token's own write is at most this share of the state after it."""

_HEAD = {
    "layer": "model layer",
    "head": "head within the layer",
    "native_write": "which form of the write was deleted: delta, or value where there is no delta write (RWKV-7)",
    "decay": "mean over all tokens (and channels) of the share of the state that is kept",
}
COLUMNS = _HEAD | {
    "write_share": "|k u^T| / |S_t| (Frobenius), lower median over the writes",
    "stable_rank": "|S_t|_F^2 / |S_t|_2^2, lower median",
    "delete_kl_*": "KL(native || patched) of the next scored token when one write is deleted, nats, lower median; by "
    "timing",
    "above_*": "share of the deletions whose effect stands above rounding; by timing",
    "singular_values": "each singular value of the state as a share of its Frobenius norm, largest first, medians",
}
MORE = {
    "writes": _HEAD | {
        "passage": "number of the passage", "position": "token within it", "token": "its id",
        "state_norm": "|S_t|", "write_share": "of this write", "stable_rank": "of this state",
        "delete_kl_*": "of this write, nats; by timing",
        "floor_*": "KL between two native runs whose rounding differs; by timing",
        "singular_values": "of this state, largest first",
    }
}  # fmt: skip


@dataclass(frozen=True)
class Summary:
    """Over all heads."""

    default_site: str
    """The head with the largest deletion effect among those that remember (write share <= 0.5), else of all."""
    delete_kl: float
    """Its median effect, nats."""
    above: float
    """Share of its deletions whose effect stands above rounding."""
    native_write: NativeWrite
    """Which form of the write was deleted."""
    heads: int
    remembering: int
    """Heads whose write is at most half of the state after it."""
    stable_rank: float
    """Median over heads of their medians, as the following two."""
    write_share: float
    decay: float
    singular_share: float
    """Median over all states of the largest singular value's share of the squared Frobenius norm."""


def heads_of(writes: pd.DataFrame) -> pd.DataFrame:
    """One row a head from the table of writes."""
    timings = [str(name).removeprefix("floor_") for name in writes if str(name).startswith("floor_")]
    rows = []
    for _, own in writes.groupby(["layer", "head"], sort=True):
        relative = np.stack(own.singular_values.tolist()) / np.maximum(own.state_norm.to_numpy()[:, None], 1e-30)
        effects = [f"delete_kl_{timing}" for timing in timings]
        middle = {name: _middle(own[name]) for name in ("write_share", "stable_rank", *effects)}
        middle |= {f"above_{t}": float(above(own[f"delete_kl_{t}"], own[f"floor_{t}"]).mean()) for t in timings}
        same = {str(name): own[name].iloc[0] for name in _HEAD}
        rows.append({**same, **middle, "singular_values": np.median(relative, 0)})
    return pd.DataFrame(rows)


def _middle(x: pd.Series[float]) -> float:
    """The lower median: a value that was measured."""
    return float(np.sort(x.to_numpy())[(len(x) - 1) // 2])


def summarise(tables: Mapping[str, pd.DataFrame], config: SpectrumConfig) -> Summary:
    """The summary of the two tables."""
    records, writes = tables["records"], tables["writes"]
    remembering = records[records.write_share <= MEMORY]
    among, effect = remembering if len(remembering) else records, f"delete_kl_{config.timings[0]}"
    best = among.iloc[int(np.argmax(among[effect].to_numpy()))]
    largest = np.array([values[0] for values in writes.singular_values]) / writes.state_norm.to_numpy()
    return Summary(
        default_site=str(Site(int(best["layer"]), int(best["head"]))),
        delete_kl=float(best[effect]),
        above=float(best[f"above_{config.timings[0]}"]),
        native_write=cast(NativeWrite, str(best.native_write)),
        heads=len(records),
        remembering=len(remembering),
        stable_rank=float(records.stable_rank.median()),
        write_share=float(records.write_share.median()),
        decay=float(records.decay.median()),
        singular_share=float(np.median(np.square(largest))),
    )
