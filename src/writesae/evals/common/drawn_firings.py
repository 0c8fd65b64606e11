"""Random firings of chosen atoms, and the native runs in which they are edited."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from writesae.causal.budget import PASSAGES, passages_at_once
from writesae.causal.runs import run_natively
from writesae.causal.writes import head_writes
from writesae.errors import InputError
from writesae.evals.common.conditions import Atoms
from writesae.evals.common.controls import ScoredHead
from writesae.evals.common.firings import all_firings, gather
from writesae.evals.common.pieces import Keep, concatenated
from writesae.evals.common.subject import Subject
from writesae.hosts import Host
from writesae.hosts.fork import NativeRun
from writesae.sae import SAE
from writesae.types import NativeWrite, Site


class Drawn(NamedTuple):
    """Firings of some atoms, and what became of the atoms that were asked for."""

    firings: pd.DataFrame
    """One row a firing (passage, position, feature, coefficient), sorted by passage."""
    attempted: int
    refused: dict[str, int]
    """Reason -> atoms."""


def by_runs(
    subject: Subject, keep: Keep, places: pd.DataFrame, score: Callable[[NativeRun, pd.DataFrame, int], pd.DataFrame],
    name: str = "passages",
) -> pd.DataFrame:  # fmt: skip
    """The records of all places (rows with a passage), in pieces that are kept: `score` is given a native run, the
    places in it, and the number of its first passage."""

    def piece(begin: int, _: int) -> pd.DataFrame:
        runs = native_runs(subject.host, subject.site, subject.tokens, places, begin)
        return concatenated([score(run, here, first) for first, here, run in runs] or [pd.DataFrame()])

    return keep.by_passages(len(subject.tokens), piece, name=name)


def firings_at(
    run: NativeRun, subject: Subject, here: pd.DataFrame, offset: int, forms: Sequence[NativeWrite]
) -> dict[NativeWrite, ScoredHead]:
    """What stands at some firings of a run, whose first passage has the number `offset`, in each form of the write."""
    passage, position, feature = (torch.tensor(here[c].to_numpy()) for c in ("passage", "position", "feature"))
    writes = head_writes(run, subject.site.head)
    coefficient = torch.tensor(here.coefficient.to_numpy()).to(writes.value)
    found = {}
    for form in forms:
        firings = gather(subject.sae, writes, passage - offset, position, feature, coefficient, form)
        found[form] = ScoredHead(subject.site, subject.sae, writes, firings)
    return found


def draw_firings(subject: Subject, wanted: Atoms, native_write: NativeWrite) -> Drawn:
    """Random firings of the atoms asked for, else of the most frequent ones, at places that can be scored.

    Raises InputError where no atom fires often enough, and for a feature that the dictionary does not have.
    """
    host, sae, site, tokens = subject.host, subject.sae, subject.site, subject.tokens
    fired = all_firings(host, sae, site, tokens, native_write, reading=wanted.reading)
    fired = fired[["passage", "position", "feature", "coefficient"]]
    known = check_features(sae, wanted.features)
    chosen = known or fired.feature.value_counts().head(wanted.atoms).index.tolist()
    attempted = len(known) or min(wanted.atoms, sae.config.features)
    alive = set(fired.feature) & set(chosen)
    inside = fired[(fired.position > 0) & (fired.position < tokens.shape[1] - 2)]
    mixed = inside.iloc[np.random.default_rng(wanted.seed).permutation(len(inside))]
    mixed = mixed[mixed.feature.isin(chosen)]
    enough = mixed.groupby("feature").filter(lambda group: len(group) >= wanted.firings)
    if enough.empty:
        raise InputError(
            f"none of {attempted} atoms of {site} fires {wanted.firings} times where it can be scored "
            f"({attempted - len(alive)} never fire): pass more text or ask for fewer firings"
        )
    drawn = enough.groupby("feature").head(wanted.firings).sort_values(["passage", "position", "feature"])
    reasons = {
        "never fires": attempted - len(alive),
        f"fewer than {wanted.firings} firings": len(alive) - drawn.feature.nunique(),
    }
    return Drawn(drawn.reset_index(drop=True), attempted, {reason: n for reason, n in reasons.items() if n})


def check_features(sae: SAE, features: tuple[int, ...]) -> list[int]:
    """Features without repeats; raises InputError for one that the dictionary does not have."""
    beyond = [feature for feature in features if feature >= sae.config.features]
    if beyond:
        raise InputError(f"feature {beyond[0]} was asked for; the dictionary has 0 to {sae.config.features - 1}")
    return sorted(set(features))


def native_runs(
    host: Host, site: Site, tokens: Tensor, firings: pd.DataFrame, start: int
) -> Iterator[tuple[int, pd.DataFrame, NativeRun]]:
    """The firings of one finished piece, which begins at passage `start`, as many passages at a time as fit, with their
    native run: (number of the first passage, their firings, the run). Passages without firings are not run."""
    at_once, stop = passages_at_once(host, tokens.shape[1], site.layer), min(start + PASSAGES, len(tokens))
    for begin in range(start, stop, at_once):
        end = min(begin + at_once, stop)
        here = firings[firings.passage.between(begin, end - 1)]
        if len(here):
            yield begin, here, run_natively(host, tokens[begin:end], site.layer)
