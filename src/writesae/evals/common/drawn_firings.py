"""Random firings of chosen atoms, and the native runs in which they are edited."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
from torch import Tensor

from writesae.causal.budget import PASSAGES, passages_at_once
from writesae.errors import InputError
from writesae.evals.common.firings import all_firings
from writesae.evals.old.configs import ReadersConfig, SelectivityConfig
from writesae.evals.old.parts import Parts
from writesae.hosts import Host
from writesae.hosts.fork import NativeRun, native_run
from writesae.sae import SAE
from writesae.types import Site


class Drawn(NamedTuple):
    """Firings of some atoms, and what became of the atoms that were asked for."""

    firings: pd.DataFrame
    """One row a firing, sorted by passage; its cosine is to the write in the form that the dictionary models."""
    attempted: int
    refused: dict[str, int]
    """Reason -> atoms."""


def draw_firings(host: Host, sae: SAE, site: Site, tokens: Tensor, config: SelectivityConfig | ReadersConfig) -> Drawn:
    """Random firings of the atoms asked for, else of the most frequent ones, at places that can be scored.

    Raises InputError where no atom fires often enough, and for a feature that the dictionary does not have.
    """
    fired = all_firings(host, sae, site, tokens, "value" if sae.config.target == "write-value" else "delta")
    known = check_features(sae, config.features)
    wanted = known or fired.feature.value_counts().head(config.atoms).index.tolist()
    attempted = len(known) or min(config.atoms, sae.config.features)
    alive = set(fired.feature) & set(wanted)
    inside = fired[(fired.position > 0) & (fired.position < tokens.shape[1] - 2)]
    mixed = inside.iloc[np.random.default_rng(config.seed).permutation(len(inside))]
    mixed = mixed[mixed.feature.isin(wanted)]
    enough = mixed.groupby("feature").filter(lambda group: len(group) >= config.firings)
    if enough.empty:
        raise InputError(
            f"none of {attempted} atoms of {site} fires {config.firings} times where it can be scored "
            f"({attempted - len(alive)} never fire): pass more text or ask for fewer firings"
        )
    drawn = enough.groupby("feature").head(config.firings).sort_values(["passage", "position", "feature"])
    reasons = {
        "never fires": attempted - len(alive),
        f"fewer than {config.firings} firings": len(alive) - drawn.feature.nunique(),
    }
    return Drawn(drawn.reset_index(drop=True), attempted, {reason: n for reason, n in reasons.items() if n})


def check_features(sae: SAE, features: tuple[int, ...]) -> list[int]:
    """Features without repeats; raises InputError for one that the dictionary does not have."""
    beyond = [feature for feature in features if feature >= sae.config.features]
    if beyond:
        raise InputError(f"feature {beyond[0]} was asked for; the dictionary has 0 to {sae.config.features - 1}")
    return sorted(set(features))


def groups(firings: pd.DataFrame, start: int, stop: int, at_once: int) -> Iterator[tuple[int, pd.DataFrame]]:
    """Firings in passages `start` to `stop`, `at_once` of them together: (number of the first one, their firings)."""
    for begin in range(start, stop, at_once):
        here = firings[(firings.passage >= begin) & (firings.passage < begin + at_once)]
        if len(here):
            yield begin, here


def in_parts(
    parts: Parts, firings: pd.DataFrame, passages: int, score: Callable[[pd.DataFrame, int], pd.DataFrame]
) -> pd.DataFrame:
    """The records of all firings, from pieces that are kept; `score` makes those of some, from its first passage on."""
    tables = [
        parts.get(f"passages-{begin}", partial(score, here, begin))
        for begin, here in groups(firings, 0, passages, PASSAGES)
    ]
    return pd.concat(tables, ignore_index=True)


def native_runs(
    host: Host, site: Site, tokens: Tensor, firings: pd.DataFrame, start: int
) -> Iterator[tuple[int, pd.DataFrame, NativeRun]]:
    """The same for one finished part, which begins at passage `start`, as many passages at a time as fit, with their
    native run."""
    at_once = passages_at_once(host, tokens.shape[1], site.layer)
    stop = min(start + PASSAGES, len(tokens))
    for begin, here in groups(firings, start, stop, at_once):
        yield begin, here, native_run(host, tokens[begin : min(begin + at_once, stop)], site.layer)
