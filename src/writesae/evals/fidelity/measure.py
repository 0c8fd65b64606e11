"""A prefix runs natively; then states are replaced, while convolution windows, keys and values stay, and the suffix is
scored.

The heads that have a dictionary may be in one layer or in several. A dictionary of writes reconstructs a state by
replaying its reconstructed writes with the head's own decays.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import Cache

from writesae.causal.budget import passages_at_once
from writesae.causal.writes import stream_writes
from writesae.errors import InputError
from writesae.evals.common.pieces import Keep, Measured
from writesae.evals.common.subject import Subject
from writesae.evals.fidelity import FidelityConfig
from writesae.evals.fidelity.summary import ALL
from writesae.hosts import Host, KernelCall, Tap
from writesae.hosts.caches import new_cache, read_state, run_cached, write_state
from writesae.recurrence import Stream
from writesae.sae import SAE
from writesae.types import Site


def measure(subject: Subject, config: FidelityConfig, keep: Keep) -> Measured:
    """An item is a passage, a record a passage and scope. Raises InputError where the prefix leaves nothing."""
    host, tokens, saes = subject.host, subject.tokens, dict(subject.saes)
    length = tokens.shape[1]
    start = round(config.prefix * length)
    if not 1 <= start <= length - 2:
        raise InputError(
            f"a prefix of {config.prefix} leaves nothing to run or to score in passages of {length} tokens: give a "
            f"share between {1 / length:.3f} and {(length - 2) / length:.3f}"
        )
    at_once = passages_at_once(host, length, min(site.layer for site in saes), read=length - start)

    def piece(begin: int, end: int) -> pd.DataFrame:
        tables = []
        for first in range(begin, end, at_once):
            table = _score(host, saes, tokens[first : min(first + at_once, end)], start, config)
            tables.append(table.assign(passage=table.passage + first))
        return pd.concat(tables, ignore_index=True)

    return Measured(keep.by_passages(len(tokens), piece), len(tokens))


def scopes_of(sites: Sequence[Site], config: FidelityConfig) -> dict[str, list[Site]]:
    """Name -> the heads whose states are replaced together."""
    found = {ALL: list(sites)}
    if "layer" in config.scopes:
        for layer in sorted({site.layer for site in sites}):
            found[f"L{layer}"] = [site for site in sites if site.layer == layer]
    if "head" in config.scopes:
        found |= {str(site): [site] for site in sites}
    return found


def _score(host: Host, saes: Mapping[Site, SAE], tokens: Tensor, start: int, config: FidelityConfig) -> pd.DataFrame:
    cache, streams = run_prefix(host, tokens[:, :start], sorted({site.layer for site in saes}))
    states = {site: read_state(host, cache, site.layer)[:, site.head].float() for site in saes}
    hats = {site: reconstructed(streams[site.layer].heads(site.head), states[site], sae) for site, sae in saes.items()}
    native, eps = _suffix_loss(host, cache, tokens, start, {}), torch.finfo(host.dtype).eps
    again = _suffix_loss(host, cache, tokens, start, {site: state * (1 + eps) for site, state in states.items()})
    tables = []
    for scope, sites in scopes_of(list(saes), config).items():
        losses = {
            "native": native,
            "again": again,
            "reconstruction": _suffix_loss(host, cache, tokens, start, {site: hats[site] for site in sites}),
            "zero": _suffix_loss(host, cache, tokens, start, {site: torch.zeros_like(hats[site]) for site in sites}),
        }
        columns = {f"nll_{name}": loss.cpu().numpy() for name, loss in losses.items()}
        numbers = {"passage": range(len(tokens)), "scope": scope, "tokens": tokens.shape[1] - 1 - start}
        tables.append(pd.DataFrame(numbers | columns))
    return pd.concat(tables, ignore_index=True)


def run_prefix(host: Host, tokens: Tensor, layers: Sequence[int]) -> tuple[Cache, dict[int, Stream]]:
    """The cache after passages `[B, t]`, and what these layers wrote."""
    cache, streams = new_cache(host), dict[int, Stream]()

    def before(call: KernelCall) -> None:
        if call.layer in layers:
            streams[call.layer] = call.stream

    with host.tap(Tap(before=before)):
        run_cached(host, tokens, cache, 0, keep=1)
    return cache, streams


def _suffix_loss(host: Host, cache: Cache, tokens: Tensor, start: int, put: Mapping[Site, Tensor]) -> Tensor:
    """Summed negative log-likelihood of tokens `start + 1` on, with these states (`[B, K, V]`) in the cache. `[B]`."""
    forked = copy.deepcopy(cache)
    for layer in {site.layer for site in put}:
        state = read_state(host, forked, layer).clone()
        for site, matrix in put.items():
            if site.layer == layer:
                state[:, site.head] = matrix.to(state)
        write_state(host, forked, layer, state)
    with host.tap():
        logits = run_cached(host, tokens[:, start:-1], forked, start).double()
    target = tokens[:, start + 1 :].to(logits.device)
    return cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="none").view(target.shape).sum(1)


def reconstructed(stream: Stream, state: Tensor, sae: SAE) -> Tensor:
    """A head's reconstructed state, `[B, K, V]`, after the last token of its stream `[B, t, 1, d]`.

    `state` is the native one, which a dictionary of states encodes.
    """
    if sae.config.target == "state":
        return sae.decode(sae.encode(state))
    codes = sae.encode_written(stream_writes(stream).written)
    hat = torch.zeros_like(state)
    for t in range(stream.key.shape[1]):
        after = stream.log_decay[:, t, 0].exp().unsqueeze(-1) * hat
        if sae.config.target == "write-value" and stream.erase is not None:
            along, read = (x[:, t, 0] for x in stream.erase)
            after = after - along.unsqueeze(-1) * torch.einsum("bk,bkv->bv", read, hat).unsqueeze(-2)
        hat = after + sae.decode(type(codes)(codes.index[:, t], codes.value[:, t]))
    return hat
