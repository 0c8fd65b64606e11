"""Hashes and facts of what an evaluation is run on, for its provenance."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType

import torch

from writesae.causal.budget import BUDGET
from writesae.config import to_json
from writesae.corpus import Passages
from writesae.evals.common.provenance import Allowance, DictionarySource, Provenance, TextSource
from writesae.hosts import Host
from writesae.sae import SAE
from writesae.types import Site


@cache
def versions() -> Mapping[str, str]:
    """Versions of the packages that numbers depend on."""
    return MappingProxyType({name: version(name) for name in ("writesae", "torch", "transformers")})


def published(name: str) -> str:
    """A name without the folders above it: results are published."""
    path = Path(name)
    return path.name if path.is_absolute() or path.exists() else name


def sae_hash(sae: SAE) -> str:
    """SHA-256 over a dictionary's configuration and tensors."""
    digest = hashlib.sha256(repr(to_json(sae.config)).encode())
    for name, tensor in sorted(sae.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def dictionary_source(sae: SAE, site: Site, passages: Passages) -> DictionarySource:
    """What a result says of a dictionary that is measured at a head on these passages."""
    record = sae.record
    parts = [(record.variant if record else None) or "dictionary", str(site), sae.target]
    name = " ".join(parts) + (f", seed {record.seed}" if record is not None and record.seed is not None else "")
    overlap = None
    print_ = getattr(record, "text", None)
    if print_ is not None:
        share = print_.overlap(passages.tokens)
        overlap = None if math.isnan(share) else share
    return DictionarySource(name, sae_hash(sae), site, sae.target, sae.config.features, overlap)


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
    return Provenance(
        published(host.name),
        host.revision,
        dtype,
        device,
        sites,
        sources,
        text_source(passages),
        versions(),
        BUDGET,
        allowed,
    )
