"""What it costs to replace states by their reconstruction: perplexity of the text that follows.

The prefix runs natively; after it the states of the heads that have a dictionary, in one layer or in several, become
their reconstruction (or zero, for scale), while convolution windows, keys and values stay; the suffix is scored. A
dictionary of writes reconstructs a state by replaying its reconstructed writes with the head's own decays.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import Cache

from writesae.causal.budget import PASSAGES, passages_at_once
from writesae.causal.writes import stream_writes
from writesae.errors import InputError
from writesae.evals.common.stats import Interval, Test, clustered, wilcoxon
from writesae.evals.old.configs import FidelityConfig as FidelityConfig
from writesae.evals.old.parts import Parts
from writesae.evals.old.provenance import Provenance, provenance
from writesae.evals.old.result import Result
from writesae.hosts import Host, KernelCall, Tap
from writesae.hosts.caches import new_cache, read_state, run_cached, write_state
from writesae.recurrence import Stream
from writesae.sae import SAE
from writesae.types import Site

CONDITIONS = ("native", "reconstruction", "zero")
ALL = "all"
"""The scope of every head that has a dictionary."""


@dataclass(frozen=True)
class Replaced:
    """Over all scored suffix tokens, with the states of one scope replaced."""

    perplexity: dict[str, float]
    """Condition -> exp(mean negative log-likelihood)."""
    delta: float
    """Perplexity with reconstructed states minus native perplexity."""
    nats: float
    """Mean negative log-likelihood added, nats a token."""
    interval: Interval
    """Of `nats`, bootstrap over passages."""
    recovered: float
    """Loss recovered: 1 - (reconstruction - native) / (zero - native) of the mean negative log-likelihoods; nan where
    zero states do not raise the loss."""
    wilcoxon: Test
    """Signed ranks over passages, reconstruction against native."""


@dataclass(frozen=True)
class FidelitySummary(Replaced):
    """Every head that has a dictionary at once, and the smaller scopes that were asked for."""

    tokens: int
    """Scored."""
    scopes: dict[str, Replaced]
    """"L5.H0" (that head alone) or "L5" (the heads of that layer that have a dictionary) -> the same."""


@torch.no_grad()
def fidelity(
    host: Host,
    saes: Mapping[Site, SAE],
    tokens: Tensor,
    config: FidelityConfig | None = None,
    folder: Path | None = None,
) -> Result[FidelityConfig, FidelitySummary]:
    """Replace the states of one head, the heads of a layer, or heads of several layers, on passages `[B, T]`.

    A record is a passage; the table `scopes` has one row a passage and smaller scope. In `folder` finished passages
    are kept, and a run that was stopped goes on there. Raises InputError for a dictionary of another shape, none at
    all, or passages too short for the prefix.
    """
    config = FidelityConfig() if config is None else config
    if not saes:
        raise InputError("fidelity replaces states by their reconstruction: give at least 1 dictionary, not 0")
    sources = [provenance(host, site, tokens, sae) for site, sae in saes.items()]
    hashes, sites = tuple(h for s in sources for h in s.sae), ",".join(s.site for s in sources)
    source = Provenance(host.name, host.revision, sites, hashes, sources[0].tokens)
    length = tokens.shape[1]
    start = round(config.prefix * length)
    if not 1 <= start <= length - 2:
        raise InputError(
            f"a prefix of {config.prefix} leaves nothing to run or to score in passages of {length} tokens: give a "
            f"share between {1 / length:.3f} and {(length - 2) / length:.3f}"
        )
    parts = Parts.open(folder, "fidelity", source, config)
    tables = []
    for begin in range(0, len(tokens), PASSAGES):
        make = partial(_score, host, saes, tokens[begin : begin + PASSAGES], start, config)
        table = parts.get(f"passages-{begin}", make)
        tables.append(table.assign(passage=table.passage + begin))
    whole = pd.concat(tables, ignore_index=True)
    records = whole[whole.scope == ALL].drop(columns="scope").reset_index(drop=True)
    scopes = whole[whole.scope != ALL].reset_index(drop=True)
    summary = summarise(records, scopes, config)
    return Result("fidelity", source, config, len(records), {}, summary, records, {"scopes": scopes})


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
    lowest = min(site.layer for site in saes)
    at_once = passages_at_once(host, tokens.shape[1], lowest, read=tokens.shape[1] - start)
    tables = []
    for begin in range(0, len(tokens), at_once):
        table = _score_rows(host, saes, tokens[begin : begin + at_once], start, config)
        tables.append(table.assign(passage=table.passage + begin))
    return pd.concat(tables, ignore_index=True)


def _score_rows(
    host: Host, saes: Mapping[Site, SAE], tokens: Tensor, start: int, config: FidelityConfig
) -> pd.DataFrame:
    cache, streams = run_prefix(host, tokens[:, :start], sorted({site.layer for site in saes}))
    states = {site: read_state(host, cache, site.layer)[:, site.head].float() for site in saes}
    hats = {site: reconstructed(streams[site.layer].heads(site.head), states[site], sae) for site, sae in saes.items()}
    native = _suffix_loss(host, cache, tokens, start, {})
    tables = []
    for scope, sites in scopes_of(list(saes), config).items():
        losses = {
            "native": native,
            "reconstruction": _suffix_loss(host, cache, tokens, start, {site: hats[site] for site in sites}),
            "zero": _suffix_loss(host, cache, tokens, start, {site: torch.zeros_like(hats[site]) for site in sites}),
        }
        columns = {f"nll_{name}": loss.cpu().numpy() for name, loss in losses.items()}
        numbers = {"passage": range(len(tokens)), "tokens": tokens.shape[1] - 1 - start, "scope": scope}
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


def summarise(records: pd.DataFrame, scopes: pd.DataFrame, config: FidelityConfig) -> FidelitySummary:
    """The summary of the two tables."""
    smaller = {str(name): _replaced(table, config) for name, table in scopes.groupby("scope", sort=False)}
    whole = _replaced(records, config)
    return FidelitySummary(**vars(whole), tokens=int(records.tokens.sum()), scopes=smaller)


def _replaced(records: pd.DataFrame, config: FidelityConfig) -> Replaced:
    tokens = int(records.tokens.sum())
    mean = {name: float(records[f"nll_{name}"].sum() / tokens) for name in CONDITIONS}
    perplexity = {name: float(np.exp(value)) for name, value in mean.items()}
    added = (records.nll_reconstruction - records.nll_native) / records.tokens
    span = mean["zero"] - mean["native"]
    return Replaced(
        perplexity=perplexity,
        delta=perplexity["reconstruction"] - perplexity["native"],
        nats=mean["reconstruction"] - mean["native"],
        interval=clustered(added.to_numpy(), records.passage.to_numpy(), config.seed),
        recovered=1 - (mean["reconstruction"] - mean["native"]) / span if span > 0 else float("nan"),
        wilcoxon=wilcoxon(records.nll_reconstruction, records.nll_native),
    )
