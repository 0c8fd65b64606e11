"""Delete or replace every write on which a class of atoms fires, over whole passages (paper section 3.2, Fig. 2b).

Wherever the top feature of a token belongs to the class, the token's native write is edited before its own read
(`at_token`): what is taken out, or gives way to the atom, is what the head writes there in the edited run.
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

from writesae.causal.budget import PASSAGES, passages_at_once
from writesae.causal.passages import edited_losses
from writesae.causal.patching import Edits
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
from writesae.hosts import Host
from writesae.hosts.fork import NativeRun, native_run
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
    # what gives way is what the head writes in the edited run: one deletion changes the writes that follow
    weight = torch.zeros(len(position), len(CONDITIONS), 3, dtype=firings.key.dtype, device=firings.key.device)
    weight[:, :, 0] = -1
    weight[:, CONDITIONS.index("atom"), 1] = coefficient
    weight[:, CONDITIONS.index("random_norm"), 2] = firings.norm
    edits = Edits(
        [site.head] * 3, passage, position, torch.stack([firings.key, firings.v, random.key], 1),
        torch.stack([firings.value, firings.w, random.value], 1), weight, own={0: config.native_write},
    )  # fmt: skip
    losses = edited_losses(host, tokens, {site.layer: edits}, "at_token").sum(-1).cpu()
    columns = {f"nll_{name}": loss.numpy() for name, loss in zip(("native", *CONDITIONS), losses, strict=True)}
    count = torch.bincount(passage, minlength=len(tokens))
    numbers = {"passage": range(begin, begin + len(tokens)), "firings": count.numpy(), "tokens": tokens.shape[1] - 1}
    each = dict(zip(FIRED, (position, feature.cpu(), coefficient.double().cpu()), strict=True))
    lists = {name: [part.tolist() for part in torch.split(x, count.tolist())] for name, x in each.items()}
    return pd.DataFrame(numbers | columns | lists)


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
