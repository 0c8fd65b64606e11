"""What it costs to replace a layer's states by their reconstruction: perplexity of the text that follows.

The prefix runs natively; after it the states of the heads that have a dictionary become their reconstruction (or
zero, for scale), while convolution windows, keys and values stay; the suffix is scored. A dictionary of writes
reconstructs a state by replaying its reconstructed writes with the head's own decays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from writesae.errors import InputError
from writesae.evals.patching import rows_at_once
from writesae.evals.provenance import Provenance, provenance
from writesae.evals.result import Result
from writesae.evals.stats import Interval, Test, clustered, wilcoxon
from writesae.evals.writes import head_writes
from writesae.hosts import Host
from writesae.hosts.fork import NativeRun, Rows, native_run
from writesae.recurrence import Stream, respond_reference
from writesae.sae import SAE
from writesae.types import Site

CONDITIONS = ("native", "reconstruction", "zero")
PASSAGES_AT_ONCE = 8


@dataclass(frozen=True)
class FidelityConfig:
    """Where states are replaced."""

    prefix: float = 0.5
    """Share of each passage that runs before the states are replaced."""
    seed: int = 0
    """Of the bootstrap."""


@dataclass(frozen=True)
class FidelitySummary:
    """Over all scored suffix tokens."""

    tokens: int
    perplexity: dict[str, float]
    """Condition -> exp(mean negative log-likelihood)."""
    delta: float
    """Perplexity with reconstructed states minus native perplexity."""
    nats: float
    """Mean negative log-likelihood added, nats a token."""
    interval: Interval
    """Of `nats`, bootstrap over passages."""
    recovered: float
    """Loss recovered: 1 - (reconstruction - native) / (zero - native) of the mean negative log-likelihoods."""
    wilcoxon: Test
    """Signed ranks over passages, reconstruction against native."""


@torch.no_grad()
def fidelity(
    host: Host, saes: Mapping[Site, SAE], tokens: Tensor, config: FidelityConfig | None = None
) -> Result[FidelityConfig, FidelitySummary]:
    """Replace the states of one head or several heads of one layer, on passages `[B, T]`; a record is a passage.

    Raises InputError for heads of several layers, another shape, or passages too short for the prefix.
    """
    config = FidelityConfig() if config is None else config
    layers = {site.layer for site in saes}
    if len(layers) != 1:
        raise InputError(f"fidelity replaces states of one layer at a time, not of layers {sorted(layers)}")
    sources = [provenance(host, site, tokens, sae) for site, sae in saes.items()]
    hashes, sites = tuple(h for s in sources for h in s.sae), ",".join(s.site for s in sources)
    source = Provenance(host.name, host.revision, sites, hashes, sources[0].tokens)
    (layer,), length = layers, tokens.shape[1]
    start = round(config.prefix * length)
    if not 1 <= start <= length - 2:
        raise InputError(
            f"a prefix of {config.prefix} leaves nothing to run or to score in passages of {length} tokens: give a "
            f"share between {1 / length:.3f} and {(length - 2) / length:.3f}"
        )
    tables = []
    for begin in range(0, len(tokens), PASSAGES_AT_ONCE):
        table = _score(native_run(host, tokens[begin : begin + PASSAGES_AT_ONCE], layer), saes, start)
        tables.append(table.assign(passage=table.passage + begin))
    records = pd.concat(tables, ignore_index=True)
    return Result("fidelity", source, config, len(records), {}, summarise(records, config), records)


def _score(run: NativeRun, saes: Mapping[Site, SAE], start: int) -> pd.DataFrame:
    batch, length = run.tokens.shape
    steps = length - 1 - start
    whole = torch.arange(batch)
    before = run.states(run.layer, whole, torch.full((batch,), start - 1))
    edits = torch.zeros(len(CONDITIONS), *before.shape)
    for site, sae in saes.items():
        edits[1, :, site.head] = reconstructed(run, site, sae, start - 1) - before[:, site.head]
        edits[2, :, site.head] = -before[:, site.head]
    nll = torch.empty(batch, len(CONDITIONS), dtype=torch.float64)
    for index in torch.split(whole, rows_at_once(run, len(CONDITIONS), steps)):
        rows = Rows(run, index, torch.full_like(index, start), steps, len(CONDITIONS))
        local = rows_of(run.streams[run.layer], index, start - 1, start + steps)
        response = torch.stack([respond_reference(local, e[index], at_token=False)[:, 1:] for e in edits], 1)
        logits = rows.logits(response).flatten(1, 2)
        target = run.tokens[index, start + 1 :].to(logits.device)
        wanted = target.repeat(1, len(CONDITIONS))
        each = cross_entropy(logits.double().flatten(0, 1), wanted.flatten(), reduction="none")
        nll[index] = each.view(len(index), len(CONDITIONS), steps).sum(-1).cpu()
    columns = {f"nll_{name}": nll[:, i].numpy() for i, name in enumerate(CONDITIONS)}
    return pd.DataFrame({"passage": range(batch), "tokens": steps} | columns)


def rows_of(stream: Stream, passage: Tensor, start: int, stop: int) -> Stream:
    """The tokens `start <= t < stop` of some passages."""
    return stream.map(lambda x: x[passage, start:stop])


def reconstructed(run: NativeRun, site: Site, sae: SAE, position: int) -> Tensor:
    """A head's reconstructed state after token `position` of every passage, `[B, K, V]`."""
    codes = sae.encode_written(head_writes(run, site.head).written)
    if sae.config.target == "state":
        return sae.decode(type(codes)(codes.index[:, position], codes.value[:, position]))
    stream = run.streams[run.layer].heads(site.head)
    state = torch.zeros(len(run.tokens), sae.config.d_k, sae.config.d_v)
    for t in range(position + 1):
        after = stream.log_decay[:, t, 0].exp().unsqueeze(-1) * state
        if sae.config.target == "write-value" and stream.erase is not None:
            along, read = (x[:, t, 0] for x in stream.erase)
            after = after - along.unsqueeze(-1) * torch.einsum("bk,bkv->bv", read, state).unsqueeze(-2)
        state = after + sae.decode(type(codes)(codes.index[:, t], codes.value[:, t]))
    return state


def summarise(records: pd.DataFrame, config: FidelityConfig) -> FidelitySummary:
    """The summary of the records."""
    tokens = int(records.tokens.sum())
    mean = {name: float(records[f"nll_{name}"].sum() / tokens) for name in CONDITIONS}
    perplexity = {name: float(np.exp(value)) for name, value in mean.items()}
    added = (records.nll_reconstruction - records.nll_native) / records.tokens
    span = mean["zero"] - mean["native"]
    return FidelitySummary(
        tokens=tokens,
        perplexity=perplexity,
        delta=perplexity["reconstruction"] - perplexity["native"],
        nats=mean["reconstruction"] - mean["native"],
        interval=clustered(added.to_numpy(), records.passage.to_numpy(), config.seed),
        recovered=1 - (mean["reconstruction"] - mean["native"]) / span if span != 0 else float("nan"),
        wilcoxon=wilcoxon(records.nll_reconstruction, records.nll_native),
    )
