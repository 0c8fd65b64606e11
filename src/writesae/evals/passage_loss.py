"""Delete or replace every write on which a class of atoms fires, over whole passages (paper section 3.2, Fig. 2b).

Wherever the top feature of a token belongs to the class, the token's native write is edited before its own read
(`at_token`); the response to all these edits is one replay of the layer's stream with other writes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from writesae.errors import InputError
from writesae.evals.controls import random_component
from writesae.evals.firings import runs
from writesae.evals.provenance import provenance
from writesae.evals.result import Result
from writesae.evals.stats import Interval, Test, clustered, wilcoxon
from writesae.evals.substitution import gather, top_codes
from writesae.evals.writes import NativeWrite
from writesae.hosts import Host, KernelCall, KernelResult, Tap
from writesae.recurrence import Stream, replay
from writesae.sae import SAE
from writesae.types import Site

CONDITIONS = ("atom", "delete", "random_norm")
"""What replaces each write: the atom at its coefficient, nothing, a random rank-1 matrix of the write's norm."""


@dataclass(frozen=True)
class PassageLossConfig:
    """How writes are edited."""

    native_write: NativeWrite = "delta"
    """Which matrix counts as a token's write."""
    seed: int = 0
    """Of the random matrices and the bootstrap."""


@dataclass(frozen=True)
class PassageLossSummary:
    """Over all tokens of the passages that have firings."""

    passages: int
    firings: int
    bits: dict[str, float]
    """Condition -> bits a token added to the native loss, mean over passages."""
    intervals: dict[str, Interval]
    """Bootstrap over passages."""
    tests: dict[str, Test]
    """Signed ranks over passages against the native loss."""


@torch.no_grad()
def passage_loss(
    host: Host, sae: SAE, site: Site, tokens: Tensor, features: Sequence[int], config: PassageLossConfig | None = None
) -> Result[PassageLossConfig, PassageLossSummary]:
    """Edit every firing of `features` in passages `[B, T]`; a record is a passage.

    Passages without a firing are refused and counted; raises InputError where there is none with one.
    """
    config = PassageLossConfig() if config is None else config
    source = provenance(host, site, tokens, sae)
    wanted = torch.zeros(sae.config.features, dtype=torch.bool)
    wanted[torch.tensor(list(features), dtype=torch.long)] = True
    tables = []
    for begin, run, writes in runs(host, site, tokens):
        top = top_codes(sae, writes)
        passage, position = (wanted[top.feature.cpu()] & (top.value > 0).cpu()).nonzero(as_tuple=True)
        feature, coefficient = top.feature[passage, position], top.value[passage, position]
        firings = gather(sae, writes, passage, position, feature, coefficient, config.native_write)
        random = random_component(firings, torch.Generator().manual_seed(config.seed + 1 + begin))
        sides = {
            "atom": (firings.v, firings.w * coefficient.unsqueeze(-1)),
            "delete": None,
            "random_norm": (random.key, random.value * firings.norm.unsqueeze(-1)),
        }
        stream = run.streams[site.layer].heads(site.head)
        removed = response(stream, passage, position, firings.key, -firings.value)
        losses = {"native": _loss(host, run.tokens, site, None)}
        for name in CONDITIONS:
            put = sides[name]
            added = removed if put is None else removed + response(stream, passage, position, *put)
            losses[name] = _loss(host, run.tokens, site, added)
        columns = {f"nll_{name}": loss.cpu().numpy() for name, loss in losses.items()}
        fired = torch.bincount(passage, minlength=len(run.tokens)).numpy()
        numbers = {"passage": range(begin, begin + len(run.tokens)), "firings": fired, "tokens": tokens.shape[1] - 1}
        tables.append(pd.DataFrame(numbers | columns))
    records = pd.concat(tables, ignore_index=True)
    silent = int((records.firings == 0).sum())
    records = records[records.firings > 0].reset_index(drop=True)
    if records.empty:
        raise InputError(f"none of the {len(features)} features is the top one anywhere in {len(tokens)} passages")
    refused = {"no firing of the class": silent} if silent else {}
    return Result("passage_loss", source, config, len(tokens), refused, summarise(records, config), records)


def response(stream: Stream, passage: Tensor, position: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """What adding `key[j] value[j]^T` at token `position[j]` of row `passage[j]`, all together, adds to one head's
    outputs `[B, T, 1, V]`; each token reads its own edit."""
    keys, values = torch.zeros_like(stream.key), torch.zeros_like(stream.value)
    keys[passage, position, 0], values[passage, position, 0] = key.to(keys), value.to(values)
    along, read = (None, None) if stream.erase is None else stream.erase
    return replay(Stream(stream.query, keys, values, stream.log_decay, erase_read=read, erase_write=along)).outputs


def _loss(host: Host, tokens: Tensor, site: Site, added: Tensor | None) -> Tensor:
    """Summed negative log-likelihood of each passage, `[B]`, nats, float64."""

    def after(call: KernelCall, result: KernelResult) -> KernelResult:
        if call.layer != site.layer or added is None:
            return result
        output = result.output.clone()
        output[:, :, site.head] += added[:, :, 0].to(output)
        return result._replace(output=output)

    logits = host.logits(tokens, Tap(after=after))[:, :-1].double()
    target = tokens[:, 1:].to(logits.device)
    return cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="none").view(target.shape).sum(1)


def summarise(records: pd.DataFrame, config: PassageLossConfig) -> PassageLossSummary:
    """The summary of the records."""
    added = {name: (records[f"nll_{name}"] - records.nll_native) / records.tokens / math.log(2) for name in CONDITIONS}
    clusters = records.passage.to_numpy()
    return PassageLossSummary(
        passages=len(records),
        firings=int(records.firings.sum()),
        bits={name: float(x.mean()) for name, x in added.items()},
        intervals={name: clustered(x.to_numpy(), clusters, config.seed) for name, x in added.items()},
        tests={name: wilcoxon(records[f"nll_{name}"], records.nll_native) for name in CONDITIONS},
    )
