"""What the probes are run on: any host by name, models with random weights among them, heads, and texts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from writesae.corpus import Share, check_passages, draw_passages
from writesae.errors import InputError
from writesae.evals.old.provenance import Provenance, provenance, sae_hash, tokens_hash
from writesae.hosts import Host, load
from writesae.hosts.tiny import TINY_MODELS, build_tiny
from writesae.sae import SAE
from writesae.types import Site

RANDOM = "random:"
"""`random:mamba2` is that model of `writesae.hosts.tiny`: random weights, and so random tokens for texts."""


def open_host(name: str, device: str | None = None, revision: str | None = None) -> Host:
    """A host by name, or one of random weights as `random:NAME`. Raises InputError for an unknown one."""
    if not name.startswith(RANDOM):
        return load(name, device=device, revision=revision)
    kind = name.removeprefix(RANDOM)
    try:
        model = build_tiny(kind)
    except ImportError as error:
        extra = f"writesae[{TINY_MODELS[kind].extra}]"
        raise InputError(f"{name} needs {error.name}, which is not installed: pip install '{extra}'") from error
    model.config.name_or_path = name
    return load(model if device is None else nn.Module.to(model, device))


def draw_texts(host: Host, corpus: str, count: int, length: int, part: Share = (0.0, 1.0), seed: int = 0) -> Tensor:
    """`[count, length]` token ids, drawn at random from a part of every document of a corpus.

    A host of random weights gets random ids. Raises InputError where the part holds too little text.
    """
    if host.name.startswith(RANDOM):
        check_passages(count, length, part)
        return torch.randint(3, host.vocabulary, (count, length), generator=torch.Generator().manual_seed(seed))
    return torch.from_numpy(draw_passages(corpus, host.tokenizer, count, length, part, seed))


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
