"""Every dictionary's atoms are classed on the same passages, then compared pair by pair."""

from __future__ import annotations

from dataclasses import fields
from functools import partial
from itertools import permutations

import numpy as np
import pandas as pd

from writesae.errors import InputError
from writesae.evals.common.classes import labels, portraits, refusals
from writesae.evals.common.firings import firings_by_form
from writesae.evals.common.forms import native_writes
from writesae.evals.common.pieces import Keep, Measured, concatenated
from writesae.evals.common.result import count
from writesae.evals.common.subject import Subject
from writesae.evals.seeds import SeedsConfig
from writesae.sae import SAE
from writesae.sae.compare import atom_cosines, matched
from writesae.types import NativeWrite

Kinds = dict[NativeWrite, dict[int, str]]
"""Form of the write -> feature -> class."""


def measure(subject: Subject, config: SeedsConfig, keep: Keep) -> Measured:
    """A record is an alive atom and another dictionary; an item is a feature of a dictionary.

    Raises InputError for the same dictionary or seed twice, for dictionaries that differ in more than their seed, and
    where fewer than two of them have atoms that can be classed.
    """
    check_seeds(subject)
    saes = [sae for _, sae in subject.saes]
    forms = native_writes(subject.host, subject.sites, subject.tokens, config.native_writes)
    keep.plan(len(saes) ** 2)
    kinds, refused = dict[int, Kinds](), dict[str, int]()
    for number, sae in enumerate(saes):
        try:
            table = keep(f"dictionary-{number}", partial(_portraits, subject, sae, forms))
            by = {form: table[table.native_write == form] for form in forms}
            kinds[number] = {form: labels(own, config.minimum, config.seed) for form, own in by.items()}
            reasons = count(refusals(by[forms[0]].firings.tolist(), config.minimum))
        except InputError as error:
            reasons = {f"dictionary {number + 1}: {error}": sae.config.features}
        for reason, n in reasons.items():
            refused[reason] = refused.get(reason, 0) + n
    if len(kinds) < 2:
        why = "; ".join(reason for reason in refused if reason.startswith("dictionary"))
        raise InputError(f"seeds compares dictionaries with each other, and {len(kinds)} can be classed: {why}")
    tables = [
        keep(f"pair-{a}-{b}", partial(_pair, saes[a], kinds[a], saes[b], kinds[b])).assign(dictionary=a, other=b)
        for a, b in permutations(kinds, 2)
    ]
    return Measured(concatenated(tables), sum(sae.config.features for sae in saes), refused)


def check_seeds(subject: Subject) -> None:
    """Raise InputError where dictionaries are the same, have the same seed, or differ in more than it."""
    sources, first = subject.provenance.dictionaries, subject.sae.config
    seen, trained, names = dict[str, int](), dict[int, int](), [field.name for field in fields(first)]
    for number, ((_, sae), source) in enumerate(zip(subject.saes, sources, strict=True), 1):
        differ = [name for name in names if getattr(sae.config, name) != getattr(first, name)]
        if differ:
            name = differ[0]
            raise InputError(
                f"dictionary {number} differs from the first in {name} ({getattr(sae.config, name)} instead of "
                f"{getattr(first, name)}): seeds compares dictionaries that differ in their seed alone"
            )
        if source.sha256 in seen:
            raise InputError(f"dictionaries {seen[source.sha256]} and {number} are the same one: give each once")
        seed = None if sae.record is None else sae.record.seed
        if seed is not None and seed in trained:
            raise InputError(
                f"dictionaries {trained[seed]} and {number} were both trained with seed {seed}: give one of each seed"
            )
        seen[source.sha256] = number
        if seed is not None:
            trained[seed] = number


def _portraits(subject: Subject, sae: SAE, forms: tuple[NativeWrite, ...]) -> pd.DataFrame:
    fired = firings_by_form(subject.host, sae, subject.site, subject.tokens, forms)
    return portraits(fired, sae.config.features, 0, forms)


def _pair(one: SAE, kinds: Kinds, other: SAE, others: Kinds) -> pd.DataFrame:
    """One row an alive atom of `one`: its classes, and its cosines to its best and to its assigned counterpart."""
    mine, theirs = (list(next(iter(by.values()))) for by in (kinds, others))
    cosine = atom_cosines(one, other).abs().cpu()[mine][:, theirs]
    taken = np.full(len(mine), np.nan)
    pairs = matched(cosine)
    taken[pairs.first.numpy()] = pairs.cosine.numpy()
    classes = {f"class_{form}": [kind[f] for f in mine] for form, kind in kinds.items()}
    return pd.DataFrame({"feature": mine, **classes, "best": cosine.max(1).values.tolist(), "assigned": taken})
