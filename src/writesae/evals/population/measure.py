"""Atoms are classed and sampled from all firings of the passages; the places of a few firings of each are scored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from writesae.errors import InputError
from writesae.evals.common.classes import CLASSES, labels, portraits
from writesae.evals.common.controls import NEEDS_BACKGROUND, Background, View, background, picked, readings_of
from writesae.evals.common.drawn_firings import by_runs, firings_at
from writesae.evals.common.firings import firings_by_form
from writesae.evals.common.forms import native_writes
from writesae.evals.common.pieces import Keep, Measured, concatenated
from writesae.evals.common.result import count
from writesae.evals.common.score import score_firings
from writesae.evals.common.subject import Subject
from writesae.evals.population import PopulationConfig
from writesae.hosts.fork import NativeRun
from writesae.types import NativeWrite, ReadAs


def measure(subject: Subject, config: PopulationConfig, keep: Keep) -> Measured:
    """A record is a firing under one combination of the grid; an item is an atom that is sampled for one reading.

    Raises InputError where too few atoms are alive to be classed, or none has enough firings.
    """
    host, sae, site, tokens = subject.host, subject.sae, subject.site, subject.tokens
    grid = replace(config, native_writes=native_writes(host, (site,), tokens, config.native_writes))
    wanted = NEEDS_BACKGROUND.intersection(config.controls)
    common = background(host, sae, site, tokens, grid.native_writes) if wanted else {}
    readings = readings_of([sae], config.readings)
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
    places = _firings(fired, chosen, tokens.shape[1], grid)
    enough = {feature: feature in set(places.feature) for feature in chosen}
    if places.empty:
        raise InputError(
            f"none of {len(chosen)} sampled atoms of {site} has {grid.fewest} firings that can be scored: "
            "pass more text or ask for fewer firings"
        )

    def score(run: NativeRun, here: pd.DataFrame, offset: int) -> pd.DataFrame:
        heads = {}
        for form, head in firings_at(run, subject, here, offset, forms).items():
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

    records = by_runs(subject, keep, places, score, f"passages-{reading}")
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


def _firings(fired: pd.DataFrame, chosen: list[int], length: int, config: PopulationConfig) -> pd.DataFrame:
    """At most so many firings of each atom, at random, at places that can be scored; of those that have enough."""
    room = length - 1 - config.horizon
    usable = fired[fired.feature.isin(chosen) & (fired.position > 0) & (fired.position < room)]
    rng = np.random.default_rng(config.seed)
    drawn = usable.iloc[rng.permutation(len(usable))].groupby("feature").head(config.most)
    enough = drawn.groupby("feature").size() >= config.fewest
    return drawn[drawn.feature.map(enough).astype(bool)].sort_values(["passage", "position", "feature"])
