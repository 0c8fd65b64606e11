"""Atoms are classed and sampled from all firings of the passages; the places of a few firings of each are scored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from writesae.errors import InputError
from writesae.evals.common.chosen import at_most, backgrounds, score_chosen, usable
from writesae.evals.common.classes import CLASSES, labels, portraits
from writesae.evals.common.controls import Background, readings_of
from writesae.evals.common.firings import firings_by_form
from writesae.evals.common.forms import native_writes
from writesae.evals.common.pieces import Keep, Measured, concatenated
from writesae.evals.common.result import count
from writesae.evals.common.subject import Subject
from writesae.evals.population import PopulationConfig
from writesae.types import NativeWrite, ReadAs


def measure(subject: Subject, config: PopulationConfig, keep: Keep) -> Measured:
    """A record is a firing under one combination of the grid; an item is an atom that is sampled for one reading.

    Raises InputError where too few atoms are alive to be classed, or none has enough firings.
    """
    forms = native_writes(subject.host, (subject.site,), subject.tokens, config.native_writes)
    grid = replace(config, native_writes=forms)
    common = backgrounds(subject, grid)
    readings = readings_of([subject.sae], config.readings)
    keep.plan(len(readings))
    parts = [_measured(subject, grid, keep, reading, common) for reading in readings]
    refused = count(reason for part in parts for reason, n in part.refused.items() for _ in range(n))
    return Measured(concatenated([part.records for part in parts]), sum(part.attempted for part in parts), refused)


def _measured(
    subject: Subject, grid: PopulationConfig, keep: Keep, reading: ReadAs,
    common: Mapping[NativeWrite, Background],
) -> Measured:  # fmt: skip
    """The same for one reading."""
    host, sae, site, tokens, forms = subject.host, subject.sae, subject.site, subject.tokens, grid.native_writes
    fired = keep(f"firings-{reading}", lambda: firings_by_form(host, sae, site, tokens, forms, reading=reading))
    about = {form: portraits(fired, sae.config.features, 0, [form]) for form in forms}
    kinds = {form: labels(table, 1, grid.seed) for form, table in about.items()}
    chosen = sample(kinds[forms[0]], grid)
    own = usable(fired, tokens.shape[1], grid.horizon)
    places = at_most(own[own.feature.isin(chosen)], grid.most, grid.fewest, grid.seed)
    enough = {feature: feature in set(places.feature) for feature in chosen}
    if places.empty:
        raise InputError(
            f"none of {len(chosen)} sampled atoms of {site} has {grid.fewest} firings that can be scored: "
            "pass more text or ask for fewer firings"
        )

    records = score_chosen(subject, keep, grid, reading, places, common)
    rows = list(zip(records.native_write, records.feature, strict=True))
    records["class"] = [kinds[form][feature] for form, feature in rows]
    records["atom_cosine"] = [about[form].cosine[feature] for form, feature in rows]
    records["per_10k"] = [about[form].firings[feature] / tokens.numel() * 1e4 for form, feature in rows]
    refused = count("" if ok else f"fewer than {grid.fewest} firings" for ok in enough.values())
    return Measured(records, len(chosen), refused)


def sample(kind: dict[int, str], config: PopulationConfig) -> list[int]:
    """Atoms drawn evenly from the classes; what one class lacks the other gives."""
    rng = np.random.default_rng(config.seed)
    drawn = {name: rng.permutation([f for f, k in kind.items() if k == name]).tolist() for name in CLASSES}
    order = sorted(CLASSES, key=lambda name: len(drawn[name]))
    first = drawn[order[0]][: config.atoms // 2]
    return sorted(first + drawn[order[1]][: config.atoms - len(first)])
