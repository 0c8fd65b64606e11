"""Delete or replace every write on which a class of atoms fires, over whole passages (paper section 3.2, Fig. 2b).

Wherever the top feature of a token belongs to the class, the token's native write is edited before its own read
(`at_token`); the response to all these edits is one replay of the layer's stream with other writes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from writesae.causal.budget import PASSAGES, passages_at_once
from writesae.causal.writes import head_writes
from writesae.errors import InputError
from writesae.evals.common.controls import ScoredHead, drawn
from writesae.evals.common.drawn_firings import check_features
from writesae.evals.common.firings import gather, top_codes
from writesae.evals.common.stats import Interval, Test, clustered, wilcoxon
from writesae.evals.old.configs import PassageLossConfig as PassageLossConfig
from writesae.evals.old.parts import Parts
from writesae.evals.old.provenance import provenance
from writesae.evals.old.result import Result
from writesae.hosts import Host, KernelCall, KernelResult, Tap
from writesae.hosts.fork import NativeRun, native_run
from writesae.recurrence import Stream, replay
from writesae.sae import SAE
from writesae.types import Site

CONDITIONS = ("atom", "delete", "random_norm")
"""What replaces each write: the atom at its coefficient, nothing, a random rank-1 matrix of the write's norm."""
FIRED = ("position", "feature", "coefficient")
"""Columns of the table `firings`."""


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
    recovered: float
    """Loss recovered by the atoms: 1 - (atom - native) / (delete - native) of the summed losses; nan where
    deletion does not raise the loss."""


@torch.no_grad()
def passage_loss(
    host: Host,
    sae: SAE,
    site: Site,
    tokens: Tensor,
    features: Sequence[int],
    config: PassageLossConfig | None = None,
    folder: Path | None = None,
) -> Result[PassageLossConfig, PassageLossSummary]:
    """Edit every firing of `features` in passages `[B, T]`; a record is a passage, a row of `firings` an edit.

    In `folder` finished passages are kept, and a run that was stopped goes on there. Passages without a firing are
    refused and counted; raises InputError where there is none with one, or no feature was given.
    """
    config = PassageLossConfig() if config is None else config
    source = provenance(host, site, tokens, sae)
    chosen = check_features(sae, tuple(features))
    if not chosen:
        raise InputError(f"no feature is a {config.kind} at {site}: there is no firing to edit")
    parts = Parts.open(folder, "passage_loss", source, replace(config, features=tuple(chosen)))
    tables = []
    for begin in range(0, len(tokens), PASSAGES):
        group = tokens[begin : begin + PASSAGES]
        tables.append(parts.get(f"passages-{begin}", partial(_score, host, sae, site, group, chosen, begin, config)))
    whole = pd.concat(tables, ignore_index=True)
    silent = int((whole.firings == 0).sum())
    kept = whole[whole.firings > 0].reset_index(drop=True)
    if kept.empty:
        raise InputError(f"none of the {len(chosen)} features is the top one anywhere in {len(tokens)} passages")
    records = kept.drop(columns=list(FIRED))
    fired = kept[["passage", *FIRED]].explode(list(FIRED), ignore_index=True)
    fired = fired.astype({"position": "int64", "feature": "int64", "coefficient": "float64"})
    refused = {"no firing of the class": silent} if silent else {}
    summary = summarise(records, config)
    return Result("passage_loss", source, config, len(tokens), refused, summary, records, {"firings": fired})


def _score(
    host: Host, sae: SAE, site: Site, tokens: Tensor, features: list[int], begin: int, config: PassageLossConfig
) -> pd.DataFrame:
    at_once = passages_at_once(host, tokens.shape[1], site.layer)
    tables = [
        _score_run(
            native_run(host, tokens[first : first + at_once], site.layer), sae, site, features, begin + first, config
        )
        for first in range(0, len(tokens), at_once)
    ]
    return pd.concat(tables, ignore_index=True)


def _score_run(
    run: NativeRun, sae: SAE, site: Site, features: list[int], begin: int, config: PassageLossConfig
) -> pd.DataFrame:
    """One row a passage of a run, with the places of its firings as lists. `begin` is its first passage's number."""
    host, tokens, writes = run.host, run.tokens, head_writes(run, site.head)
    top = top_codes(sae, writes)
    wanted = torch.isin(top.feature.cpu(), torch.tensor(features))
    passage, position = (wanted & (top.value > 0).cpu()).nonzero(as_tuple=True)
    feature, coefficient = top.feature[passage, position], top.value[passage, position]
    firings = gather(sae, writes, passage, position, feature, coefficient, config.native_write)
    random = drawn(ScoredHead(site, sae, writes, firings), "random", config.seed, begin)
    sides = {
        "atom": (firings.v, firings.w * coefficient.unsqueeze(-1)),
        "delete": None,
        "random_norm": (random.key, random.value * firings.norm.unsqueeze(-1)),
    }
    stream = run.streams[site.layer].heads(site.head)
    removed = response(stream, passage, position, firings.key, -firings.value)
    losses = {"native": _loss(host, tokens, site, None)}
    for name in CONDITIONS:
        put = sides[name]
        added = removed if put is None else removed + response(stream, passage, position, *put)
        losses[name] = _loss(host, tokens, site, added)
    columns = {f"nll_{name}": loss.cpu().numpy() for name, loss in losses.items()}
    count = torch.bincount(passage, minlength=len(tokens))
    numbers = {"passage": range(begin, begin + len(tokens)), "firings": count.numpy(), "tokens": tokens.shape[1] - 1}
    each = dict(zip(FIRED, (position, feature.cpu(), coefficient.double().cpu()), strict=True))
    lists = {name: [part.tolist() for part in torch.split(x, count.tolist())] for name, x in each.items()}
    return pd.DataFrame(numbers | columns | lists)


def response(stream: Stream, passage: Tensor, position: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """What adding `key[j] value[j]^T` at token `position[j]` of row `passage[j]`, all together, adds to one head's
    outputs `[B, T, 1, V]`; each token reads its own edit."""
    keys, values = torch.zeros_like(stream.key), torch.zeros_like(stream.value)
    keys[passage, position, 0], values[passage, position, 0] = key.to(keys), value.to(values)
    along, read = (None, None) if stream.erase is None else stream.erase
    return replay(Stream(stream.query, keys, values, stream.log_decay, erase_read=read, erase_write=along)).outputs


def _loss(host: Host, tokens: Tensor, site: Site, added: Tensor | None) -> Tensor:
    """Summed negative log-likelihood of each passage, `[B]`, nats, float64."""
    at_once = passages_at_once(host, tokens.shape[1], site.layer, read=tokens.shape[1])
    rows = torch.split(torch.arange(len(tokens)), at_once)
    return torch.cat([_row_losses(host, tokens[i], site, None if added is None else added[i]) for i in rows])


def _row_losses(host: Host, tokens: Tensor, site: Site, added: Tensor | None) -> Tensor:
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
    total = {name: float(records[f"nll_{name}"].sum()) for name in ("native", *CONDITIONS)}
    span = total["delete"] - total["native"]
    return PassageLossSummary(
        passages=len(records),
        firings=int(records.firings.sum()),
        bits={name: float(x.mean()) for name, x in added.items()},
        intervals={name: clustered(x.to_numpy(), clusters, config.seed) for name, x in added.items()},
        tests={name: wilcoxon(records[f"nll_{name}"], records.nll_native) for name in CONDITIONS},
        recovered=1 - (total["atom"] - total["native"]) / span if span > 0 else float("nan"),
    )
