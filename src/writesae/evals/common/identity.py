"""Hashes and facts of what an evaluation is run on, for its provenance."""

from __future__ import annotations

import math

from writesae.causal.budget import BUDGET
from writesae.causal.identity import published, sae_hash, sae_name, versions
from writesae.corpus import Passages
from writesae.evals.common.provenance import Allowance, DictionarySource, Provenance, TextSource
from writesae.hosts import Host
from writesae.sae import SAE
from writesae.types import Site


def dictionary_source(sae: SAE, site: Site, passages: Passages) -> DictionarySource:
    """What a result says of a dictionary that is measured at a head on these passages."""
    overlap = None
    print_ = None if sae.record is None else sae.record.text
    if print_ is not None:
        share = print_.overlap(passages.tokens)
        overlap = None if math.isnan(share) else share
    return DictionarySource(sae_name(sae, site), sae_hash(sae), site, sae.target, sae.config.features, overlap)


def text_source(passages: Passages) -> TextSource:
    """What a result says of its passages."""
    count, length = passages.tokens.shape
    return TextSource(published(passages.corpus), passages.part, count, length, passages.seed, passages.hash)


def provenance(
    host: Host,
    saes: tuple[tuple[Site, SAE], ...],
    sites: tuple[Site, ...],
    passages: Passages,
    allowed: tuple[Allowance, ...],
) -> Provenance:
    """Everything together."""
    sources = tuple(dictionary_source(sae, site, passages) for site, sae in saes)
    dtype, device = str(host.dtype).removeprefix("torch."), str(host.device)
    about = (published(host.name), host.revision, dtype, device, sites, sources, text_source(passages))
    return Provenance(*about, versions(), BUDGET, allowed)
