"""What the records say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from writesae.evals.atoms.config import AtomsConfig
from writesae.evals.common.stats import Interval, clustered

COLUMNS = {
    "feature": "feature",
    "firings": "tokens at which it fires",
    "rate": "share of tokens at which it fires",
    "top": "share of tokens at which its coefficient is the largest",
    "coefficient": "mean over its firings",
    "largest": "largest coefficient",
    "cosine": "median cosine to the native write at its firings",
    "histogram": "firings by coefficient, in equal bins from 0 to the largest",
    "v": "key side of the atom, [d_k]",
    "w": "value side of the atom, [d_v]",
    "kl_*": "median KL in nats at its scored firings: atom, delete, random (at the atom's coefficient)",
    "wins": "share of its scored firings at which the atom's KL is below that of deletion",
    "scored": "scored firings",
    "neighbours": "most alike atoms of the dictionary",
    "neighbour_cosine": "their cosines",
    "companions": "features that fire at the same tokens beyond chance",
    "lift": "how many times as often as by chance",
}
MORE = {
    "contexts": {
        "feature": "feature",
        "quantile": "of its activations, 1 the strongest",
        "passage": "passage",
        "position": "token at which it fires",
        "coefficient": "there",
        "place": "index of that token in the context",
        "tokens": "texts of the context's tokens",
        "values": "coefficients of the feature at them, 0 where it does not fire",
    },
    "tokens": {
        "feature": "feature",
        "path": "`direct`: W_U W_O w of the unit atom; `first order`: through the whole model, at its own coefficient",
        "sign": "1 promoted, -1 suppressed",
        "rank": "0 is moved most",
        "token": "token id",
        "text": "its text",
        "score": "change of its logit, less the mean over the vocabulary",
    },
    "firings": {
        "passage": "passage",
        "position": "token",
        "feature": "feature",
        "coefficient": "coefficient",
        "cosine": "to the native write",
        "kl_*": "KL in nats: atom, delete, random",
    },
}


@dataclass(frozen=True)
class Summary:
    """Over the atoms that are described."""

    atoms: int
    cosine: float
    """Median over atoms of their median cosine to the native write."""
    rate: float
    """Median share of tokens at which one fires."""
    wins: float
    """Mean over scored atoms of the share of firings at which the atom beats deletion."""
    interval: Interval
    """Of it, bootstrap over atoms."""
    scored: int
    """Atoms with a scored firing."""
    firings: int
    """Scored firings."""


def summarise(tables: Mapping[str, pd.DataFrame], config: AtomsConfig) -> Summary:
    """The summary of the tables."""
    records = tables["records"]
    scored = records[records.scored > 0]
    wins = scored.wins.to_numpy(dtype=float)
    return Summary(
        atoms=len(records),
        cosine=float(records.cosine.median()),
        rate=float(records.rate.median()),
        wins=float(wins.mean()) if len(wins) else float("nan"),
        interval=clustered(wins, scored.feature.to_numpy(), config.seed),
        scored=len(scored),
        firings=int(records.scored.sum()),
    )
