"""One pass over the passages, without edits."""

from __future__ import annotations

import pandas as pd

from writesae.evals.common.classes import labels, portraits, refusals
from writesae.evals.common.firings import firings_by_form
from writesae.evals.common.forms import native_writes
from writesae.evals.common.pieces import Keep, Measured
from writesae.evals.common.result import count
from writesae.evals.common.subject import Subject
from writesae.evals.partition import PartitionConfig


def measure(subject: Subject, config: PartitionConfig, keep: Keep) -> Measured:
    """A record is a feature, a form of the write and a k (0: all firings); an item is a feature.

    Raises InputError where fewer than four atoms fire often enough.
    """
    keep.plan(1)
    records = keep("portraits", lambda: _portraits(subject, config))
    whole = records[(records.k == 0) & (records.native_write == records.native_write.iloc[0])]
    labels(whole, config.minimum, config.seed)  # raises where they are too few
    return Measured(records, len(whole), count(refusals(whole.firings.tolist(), config.minimum)))


def _portraits(subject: Subject, config: PartitionConfig) -> pd.DataFrame:
    host, sae, site, tokens = subject.host, subject.sae, subject.site, subject.tokens
    forms = native_writes(host, (site,), tokens, config.native_writes)
    fired = firings_by_form(host, sae, site, tokens, forms, reading=config.reading)
    tables = [portraits(fired, sae.config.features, 0, forms)]
    tables += [portraits(fired[fired.order < k], sae.config.features, k, forms) for k in config.ks]
    return pd.concat(tables, ignore_index=True)
