"""What the probes are run on: any host by name, models with random weights among them, heads, and texts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from writesae.corpus import read_documents, token_blocks
from writesae.errors import InputError
from writesae.evals.provenance import Provenance, provenance, sae_hash, tokens_hash
from writesae.hosts import Host, load_host
from writesae.hosts.tiny import TINY_MODELS, build_tiny
from writesae.sae import SAE
from writesae.types import Site

RANDOM = "random:"
"""`random:mamba2` is that model of `writesae.hosts.tiny`: random weights, and so random tokens for texts."""

Part = tuple[float, float]
"""A part of every document, such as (0.8, 1): its last fifth."""


def open_host(name: str, device: str | None = None, revision: str | None = None) -> Host:
    """A host by name, or one of random weights as `random:NAME`. Raises InputError for an unknown one."""
    if not name.startswith(RANDOM):
        return load_host(name, device=device, revision=revision)
    kind = name.removeprefix(RANDOM)
    try:
        model = build_tiny(kind)
    except ImportError as error:
        extra = f"writesae[{TINY_MODELS[kind].extra}]"
        raise InputError(f"{name} needs {error.name}, which is not installed: pip install '{extra}'") from error
    model.config.name_or_path = name
    return load_host(model, device=device)


def draw_texts(host: Host, corpus: str, count: int, length: int, part: Part = (0.0, 1.0), seed: int = 0) -> Tensor:
    """`[count, length]` token ids, drawn at random from a part of every document of a corpus.

    A host of random weights gets random ids. Raises InputError where the part holds too little text.
    """
    if count < 1 or length < 3 or not 0 <= part[0] < part[1] <= 1:
        raise InputError(
            f"cannot draw {count} texts of {length} tokens from {part[0]:.0%} to {part[1]:.0%} of each document: "
            "give at least 1 text of 3 tokens, and a part of some length"
        )
    if host.name.startswith(RANDOM):
        return torch.randint(3, host.vocabulary, (count, length), generator=torch.Generator().manual_seed(seed))
    blocks = token_blocks(read_documents(corpus), host.tokenizer, length)
    place = np.concatenate([np.arange(n) / n for n in np.unique(blocks.document, return_counts=True)[1]])
    usable = np.flatnonzero((place >= part[0]) & (place < part[1]))
    if len(usable) < count:
        raise InputError(
            f"{part[0]:.0%} to {part[1]:.0%} of the documents hold {len(usable)} texts of {length} tokens, "
            f"{count} were asked for: ask for fewer or shorter ones, or give more text"
        )
    chosen = np.random.default_rng(seed).permutation(usable)[:count]
    return torch.from_numpy(blocks.tokens[np.sort(chosen)])


def measured_on(host: Host, sites: Sequence[Site], tokens: Sequence[Tensor], saes: Sequence[SAE] = ()) -> Provenance:
    """What a probe of several heads was measured on; `saes` has one dictionary a head, or none.

    Raises InputError without a head, for one that the host does not have, or a dictionary that does not fit its head.
    """
    if not sites:
        raise InputError("no head was given: give one or more, such as L5.H0")
    for index, site in enumerate(sites):
        provenance(host, site, tokens[0], *saes[index : index + 1])
    return Provenance(
        host.name,
        host.revision,
        ",".join(map(str, sites)),
        tuple(map(sae_hash, saes)),
        ",".join(map(tokens_hash, tokens)),
    )
