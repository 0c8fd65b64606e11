"""The firings of some features, chosen or drawn from those that fire: the published way to pick places."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from writesae.errors import InputError
from writesae.evals.common.chosen import at_most, backgrounds, score_chosen, usable
from writesae.evals.common.classes import labels, portraits
from writesae.evals.common.controls import readings_of
from writesae.evals.common.drawn_firings import check_features
from writesae.evals.common.firings import firings_by_form
from writesae.evals.common.forms import native_writes
from writesae.evals.common.pieces import Keep, Measured, concatenated
from writesae.evals.common.subject import Subject
from writesae.evals.substitution import SubstitutionConfig
from writesae.types import ReadAs


def measure_features(subject: Subject, config: SubstitutionConfig, keep: Keep) -> Measured:
    """A record is a firing under one combination of the grid; an item is a firing of one reading.

    Raises InputError for several dictionaries, and where features fire too rarely.
    """
    if len(subject.saes) > 1:
        raise InputError(f"the firings of features are those of one dictionary, not of {len(subject.saes)}")
    forms = native_writes(subject.host, (subject.site,), subject.tokens, config.native_writes)
    grid, readings = replace(config, native_writes=forms), readings_of([subject.sae], config.readings)
    keep.plan(len(readings))
    places = {reading: _places(subject, grid, keep, reading) for reading in readings}
    common = backgrounds(subject, grid)
    tables = [score_chosen(subject, keep, grid, reading, own, common) for reading, own in places.items()]
    return Measured(concatenated(tables), sum(map(len, places.values())))


def _places(subject: Subject, grid: SubstitutionConfig, keep: Keep, reading: ReadAs) -> pd.DataFrame:
    """The firings that are scored."""
    host, sae, site, tokens, forms = subject.host, subject.sae, subject.site, subject.tokens, grid.native_writes
    fired = keep(f"firings-{reading}", lambda: firings_by_form(host, sae, site, tokens, forms[:1], reading=reading))
    own = usable(fired, tokens.shape[1], grid.horizon)
    counts = own.feature.value_counts()
    named = check_features(sae, grid.features)
    few = [feature for feature in named if counts.get(feature, 0) < grid.fewest]
    if few:
        raise InputError(
            f"feature {few[0]} fires {counts.get(few[0], 0)} times where it can be scored, fewer than {grid.fewest}: "
            "name others, pass more text or ask for fewer firings"
        )
    if grid.among == "register" and not named:
        kinds = labels(portraits(fired, sae.config.features, 0, forms[:1]), 1, grid.seed)
        counts = counts[[kinds[feature] == "register" for feature in counts.index]]
    chosen = named or draw_features(counts[counts >= grid.fewest], grid)
    if not chosen:
        raise InputError(
            f"no feature of {site} ({grid.among}) fires {grid.fewest} times where it can be scored: pass more text or "
            "ask for fewer firings"
        )
    return at_most(own[own.feature.isin(chosen)], grid.most, grid.fewest, grid.seed)


def draw_features(counts: pd.Series[int], config: SubstitutionConfig) -> list[int]:
    """Features without replacement, from the numbers of their firings."""
    known = counts.sort_index()
    wanted = min(config.atoms, len(known))
    if config.drawn == "most" or not wanted:
        return sorted(known.sort_values(ascending=False, kind="stable").index[:wanted].tolist())
    weight = known.to_numpy(float) if config.drawn == "by_firings" else np.ones(len(known))
    rng = np.random.default_rng(config.seed)
    return sorted(rng.choice(known.index.to_numpy(), wanted, replace=False, p=weight / weight.sum()).tolist())
