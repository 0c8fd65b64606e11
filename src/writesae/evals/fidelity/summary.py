"""What the records say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from writesae.evals.common.floor import above
from writesae.evals.common.stats import Interval, Test, clustered, wilcoxon
from writesae.evals.fidelity.config import FidelityConfig

CONDITIONS = ("native", "reconstruction", "zero")
ALL = "all"
"""The scope of every head that has a dictionary."""
COLUMNS = {
    "passage": "number of the passage",
    "scope": "whose states are replaced: all heads that have a dictionary, those of a layer (L5), or one (L5.H0)",
    "tokens": "tokens scored in its suffix",
    "nll_native": "summed negative log-likelihood of the suffix, nats",
    "nll_again": "the same after the states were nudged by one unit in the last place",
    "nll_reconstruction": "the same after states became their reconstruction",
    "nll_zero": "the same after states became zero",
}


@dataclass(frozen=True)
class Replaced:
    """Over all scored suffix tokens, with the states of one scope replaced."""

    perplexity: dict[str, float]
    """Condition -> exp(mean negative log-likelihood)."""
    added: dict[str, float]
    """Condition -> mean negative log-likelihood over the native one, nats a token."""
    intervals: dict[str, Interval]
    """Of these, bootstrap over passages."""
    above: float
    """Share of passages whose loss reconstruction changes by more than rounding does."""
    recovered: float
    """Loss recovered: 1 - added by reconstruction / added by zero; nan where zero states do not raise the loss."""
    wilcoxon: Test
    """Signed ranks over passages, reconstruction against native."""


@dataclass(frozen=True)
class Summary:
    """By whose states are replaced."""

    passages: int
    tokens: int
    """Scored."""
    scopes: dict[str, Replaced]
    """"all", then "L5.H0" (that head alone) or "L5" (the heads of that layer that have a dictionary)."""


def summarise(tables: Mapping[str, pd.DataFrame], config: FidelityConfig) -> Summary:
    """The summary of the records."""
    records = tables["records"]
    scopes = {str(name): _replaced(table, config) for name, table in records.groupby("scope", sort=False)}
    whole = records[records.scope == ALL]
    return Summary(len(whole), int(whole.tokens.sum()), scopes)


def _replaced(records: pd.DataFrame, config: FidelityConfig) -> Replaced:
    tokens, native = int(records.tokens.sum()), records.nll_native
    mean = {name: float(records[f"nll_{name}"].sum() / tokens) for name in CONDITIONS}
    added = {name: mean[name] - mean["native"] for name in CONDITIONS[1:]}
    each = {name: ((records[f"nll_{name}"] - native) / records.tokens).to_numpy() for name in added}
    effect, floor = (np.square(records[f"nll_{name}"] - native) for name in ("reconstruction", "again"))
    return Replaced(
        perplexity={name: float(np.exp(value)) for name, value in mean.items()},
        added=added,
        intervals={name: clustered(x, records.passage.to_numpy(), config.seed) for name, x in each.items()},
        above=float(above(effect, floor).mean()),
        recovered=1 - added["reconstruction"] / added["zero"] if added["zero"] > 0 else float("nan"),
        wilcoxon=wilcoxon(records.nll_reconstruction, native),
    )
