"""What a result was measured on: enough to know whether two results speak of the same thing."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from writesae.config import to_json
from writesae.errors import InputError
from writesae.hosts import Host
from writesae.sae import SAE
from writesae.types import Site


@dataclass(frozen=True)
class Provenance:
    """The inputs of an evaluation."""

    host: str
    revision: str
    """Commit of the host, or a SHA-256 of its weights."""
    site: str
    sae: tuple[str, ...]
    """SHA-256 over the configuration and tensors of each dictionary; empty where none was used."""
    tokens: str
    """SHA-256 over the token ids and their shape."""


def sae_hash(sae: SAE) -> str:
    """SHA-256 over a dictionary's configuration and tensors."""
    digest = hashlib.sha256(repr(to_json(sae.config)).encode())
    for name, tensor in sorted(sae.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def tokens_hash(tokens: Tensor) -> str:
    """SHA-256 over token ids and their shape."""
    ids = tokens.detach().cpu().long().contiguous()
    return hashlib.sha256(repr(tuple(ids.shape)).encode() + ids.numpy().tobytes()).hexdigest()


def provenance(host: Host, site: Site, tokens: Tensor, *saes: SAE, states: bool = False) -> Provenance:
    """Who was measured, checked to fit together; raises InputError for a dictionary of another shape or target.

    `states`: whether the evaluation can read the states of RWKV-7 (`HeadWrites.encode`).
    """
    layer = host.check_site(site)
    for sae in saes:
        if (sae.config.d_k, sae.config.d_v) != (layer.d_k, layer.d_v):
            raise InputError(
                f"the dictionary is for {sae.config.d_k} x {sae.config.d_v} matrices, "
                f"but {site} writes {layer.d_k} x {layer.d_v}"
            )
        if layer.family == "rwkv7" and sae.config.target not in ("write-value", *(("state",) if states else ())):
            raise InputError(
                f"{site} belongs to RWKV-7, whose heads add two rank-1 matrices a token: this evaluation takes a "
                f"dictionary of its native writes (write-value){' or states' * states}, not one of {sae.config.target}"
            )
    return Provenance(host.name, host.revision, str(site), tuple(map(sae_hash, saes)), tokens_hash(tokens))
