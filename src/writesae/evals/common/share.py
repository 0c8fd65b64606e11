"""How much of a head's state is the write of the last token: all of it where the head forgets at once."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import torch
from torch import Tensor

from writesae.causal.budget import passages_at_once
from writesae.causal.writes import stream_writes
from writesae.evals.common.forms import native_writes
from writesae.evals.common.subject import Subject
from writesae.hosts import Host
from writesae.recurrence import Stream, replay
from writesae.types import Site

PLACES = 256
"""Tokens at which it is measured."""


def state_norms(stream: Stream, passage: Tensor, position: Tensor) -> Tensor:
    """Frobenius norms of one head's native states after some tokens `[R]`, `[R]`."""
    states = replay(stream, keep=(passage, position)).states
    norms: Tensor = torch.linalg.vector_norm(states.flatten(1), dim=-1)
    return norms


def known_shares(subject: Subject, records: pd.DataFrame) -> dict[str, dict[str, float]]:
    """`shares` of the passages; of one head whose firings were scored, those at the firings."""
    if len(subject.sites) == 1 and {"share", "write_norm"} <= set(records.columns):
        medians = records.groupby("native_write", sort=False).share.median()
        return {str(subject.site): {str(form): float(x) for form, x in medians.items()}}
    return shares(subject.host, subject.sites, subject.tokens)


@torch.no_grad()
def shares(host: Host, sites: Sequence[Site], tokens: Tensor) -> dict[str, dict[str, float]]:
    """Head -> form of the write -> its norm over that of the state after its token, the median over evenly spaced
    tokens of passages `[B, T]`."""
    layers = sorted({site.layer for site in sites})
    some = tokens[: min(len(tokens), passages_at_once(host, tokens.shape[1], max(layers)))]
    places = torch.linspace(0, some.numel() - 1, min(PLACES, some.numel())).long()
    at = places // some.shape[1], places % some.shape[1]
    streams, found = host.record(some, layers), dict[str, dict[str, float]]()
    for site in sites:
        stream = streams[site.layer].heads(site.head)
        writes, norms = stream_writes(stream), state_norms(stream, *at)
        key = writes.written.key[at].norm(dim=-1)
        found[str(site)] = {
            form: float((key * writes.side(form)[at].norm(dim=-1) / norms.clamp_min(1e-30)).median())
            for form in native_writes(host, (site,), tokens, ())
        }
    return found
