"""Firings of chosen features, each scored with the feature whose firing it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from writesae.evals.common.conditions import Grid
from writesae.evals.common.controls import NEEDS_BACKGROUND, Background, View, background, picked
from writesae.evals.common.drawn_firings import by_runs, firings_at
from writesae.evals.common.pieces import Keep
from writesae.evals.common.score import score_firings
from writesae.evals.common.subject import Subject
from writesae.hosts.fork import NativeRun
from writesae.types import NativeWrite, ReadAs


def backgrounds(subject: Subject, grid: Grid) -> dict[NativeWrite, Background]:
    """What all passages say of the head, where a control asks for it."""
    if not NEEDS_BACKGROUND.intersection(grid.controls):
        return {}
    return background(subject.host, subject.sae, subject.site, subject.tokens, grid.native_writes)


def usable(fired: pd.DataFrame, length: int, horizon: int) -> pd.DataFrame:
    """The firings that can be scored: not the passage's first token, and with room behind."""
    return fired[(fired.position > 0) & (fired.position < length - 1 - horizon)]


def at_most(fired: pd.DataFrame, most: int, fewest: int, seed: int) -> pd.DataFrame:
    """At most so many firings of each feature, at random, of those that have enough; in order."""
    rng = np.random.default_rng(seed)
    drawn = fired.iloc[rng.permutation(len(fired))].groupby("feature").head(most)
    enough = drawn.groupby("feature").size() >= fewest
    return drawn[drawn.feature.map(enough).astype(bool)].sort_values(["passage", "position", "feature"])


def score_chosen(
    subject: Subject, keep: Keep, grid: Grid, reading: ReadAs, places: pd.DataFrame,
    common: Mapping[NativeWrite, Background],
) -> pd.DataFrame:  # fmt: skip
    """The records of firings (passage, position, feature, coefficient) of one reading, in every form of the write.

    By increment each form says how much its write raises the feature.
    """
    sae = subject.sae

    def score(run: NativeRun, here: pd.DataFrame, offset: int) -> pd.DataFrame:
        heads = {}
        for form, head in firings_at(run, subject, here, offset, grid.native_writes).items():
            view, own = View(form, reading), head.firings
            if reading == "increment":
                raised = sae.increments(own.key, own.value)
                raised = raised.gather(1, own.feature[:, None].to(raised.device))[:, 0]
                own = replace(own, coefficient=raised)
            if "all_active" in grid.controls:
                codes = head.writes.at(sae, own.passage, own.position)
                active = picked(sae, head.writes, codes, view, own.passage, own.position)
                head = replace(head, active=active)
            heads[view] = [replace(head, firings=own, common=common.get(form))]
        return score_firings(run, heads, grid, offset)

    return by_runs(subject, keep, places, score, f"passages-{reading}")
