"""prompts x rank classes x targets x directions x last tokens x timings x native writes x magnitudes, greedy."""

from __future__ import annotations

import pandas as pd

from writesae.errors import InputError
from writesae.evals.common.draws import ranked_tokens
from writesae.evals.common.installing import PIECE, batches, check_last, natively, trials
from writesae.evals.common.pieces import Keep, Measured
from writesae.evals.common.subject import Subject
from writesae.evals.installs import InstallsConfig


def measure(subject: Subject, config: InstallsConfig, keep: Keep) -> Measured:
    """A record is a continuation. Raises InputError for ranks outside the vocabulary, or more last tokens than a
    prompt has."""
    host, tokens = subject.host, subject.tokens
    for low, high in config.ranks:
        if high > host.vocabulary:
            raise InputError(f"ranks {low} to {high} are not within a vocabulary of {host.vocabulary}")
    check_last(config.last, tokens.shape[1])

    def make(begin: int, end: int) -> pd.DataFrame:
        some = batches(host, subject.sites, tokens.shape[1], begin, end)
        return pd.concat([_batch(passages) for passages in some], ignore_index=True)

    def _batch(passages: range) -> pd.DataFrame:
        prompts = natively(
            host, subject.sites, tokens[passages.start : passages.stop], tuple(passages), config.new_tokens
        )
        tables = []
        for low, high in config.ranks:
            for which in range(config.targets):
                key = (low, high, which)
                targets = ranked_tokens(prompts.logits, (low, high), config.seed, "target", *key, passages=passages)
                found = trials(prompts, targets, config, config.last, *key)
                tables.append(found.assign(which=which, rank_low=low, rank_high=high))
        return pd.concat(tables, ignore_index=True)

    return Measured(keep.by_passages(len(tokens), make, PIECE), len(tokens))
