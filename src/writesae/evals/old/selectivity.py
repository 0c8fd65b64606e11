"""Does an atom move its own tokens? Overlap of the most moved tokens with those of matched directions (App. D, I.1).

At a firing, the atom, a random rank-1 matrix and one orthogonal to the atom, all of the native write's norm, are
added in turn. Selectivity is one minus the share of the K most moved tokens (by absolute logit change, centred) that
the atom and the other direction have in common.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from writesae.causal.patching import Edits, patched_logits
from writesae.causal.writes import head_writes
from writesae.errors import InputError
from writesae.evals.common.controls import normalize
from writesae.evals.common.drawn_firings import draw_firings, in_parts, native_runs
from writesae.evals.common.draws import generator_for
from writesae.evals.common.stats import Interval, clustered
from writesae.evals.old.configs import SelectivityConfig as SelectivityConfig
from writesae.evals.old.parts import Parts
from writesae.evals.old.provenance import provenance
from writesae.evals.old.result import Result
from writesae.hosts import Host
from writesae.hosts.fork import NativeRun
from writesae.sae import SAE
from writesae.types import Site

AGAINST = ("random", "orthogonal")


@dataclass(frozen=True)
class SelectivitySummary:
    """Means over atoms of their mean over firings."""

    atoms: int
    selectivity: dict[str, float]
    """Against a random and an orthogonal direction."""
    intervals: dict[str, Interval]
    """Bootstrap over atoms."""


def selectivity(
    host: Host,
    sae: SAE,
    site: Site,
    tokens: Tensor,
    config: SelectivityConfig | None = None,
    folder: Path | None = None,
) -> Result[SelectivityConfig, SelectivitySummary]:
    """Measure on passages `[B, T]`; an item is an atom, a record a firing.

    In `folder` finished passages are kept, and a run that was stopped goes on there. Raises InputError where no atom
    fires often enough, or K exceeds the vocabulary.
    """
    config = SelectivityConfig() if config is None else config
    source = provenance(host, site, tokens, sae)
    if config.top > host.vocabulary:
        raise InputError(f"the {config.top} most moved of {host.vocabulary} tokens were asked for")
    drawn = draw_firings(host, sae, site, tokens, config)
    parts = Parts.open(folder, "selectivity", source, config)
    records = in_parts(parts, drawn.firings, len(tokens), partial(_score, host, sae, site, tokens, config))
    summary = summarise(records, config)
    return Result("selectivity", source, config, drawn.attempted, drawn.refused, summary, records)


def _score(
    host: Host, sae: SAE, site: Site, tokens: Tensor, config: SelectivityConfig, firings: pd.DataFrame, start: int
) -> pd.DataFrame:
    tables = []
    for begin, here, run in native_runs(host, site, tokens, firings, start):
        edits = directions(run, sae, site, here, config.seed, begin)
        overlap = torch.empty(len(here), len(AGAINST), dtype=torch.float64)
        for scored in patched_logits(run, edits, config.timing):
            change = scored.patched[:, :, 0].double() - scored.native[:, :1].double()
            overlap[scored.which] = overlaps(change, config.top).cpu()
        tables.append(here.assign(**{f"overlap_{name}": overlap[:, i].numpy() for i, name in enumerate(AGAINST)}))
    return pd.concat(tables, ignore_index=True)


def directions(run: NativeRun, sae: SAE, site: Site, here: pd.DataFrame, seed: int, offset: int = 0) -> Edits:
    """Atom, random and orthogonal direction at each firing, all of the native (delta) write's norm.

    `offset` is the number of the run's first passage. What is random is drawn passage by passage.
    """
    numbers, position, feature = (torch.tensor(here[c].to_numpy()) for c in ("passage", "position", "feature"))
    passage, written = numbers - offset, head_writes(run, site.head).written
    key, value = written.key[passage, position], written.update[passage, position]
    norm = key.norm(dim=-1) * value.norm(dim=-1)
    atoms = sae.atoms()
    v, w = normalize(atoms.v[feature]), normalize(atoms.w[feature])
    keys, values = [v], [w]
    for name in AGAINST:
        x, y = torch.empty_like(v), torch.empty_like(w)
        for number in torch.unique(numbers).tolist():
            mine, generator = numbers == number, generator_for(seed, str(site), number, name)
            for side in (x, y):
                side[mine] = torch.randn(side[mine].shape, generator=generator).to(side)
        x, y = normalize(x), normalize(y)
        if name == "orthogonal":
            x, y = (normalize(a - (a * b).sum(-1, keepdim=True) * b) for a, b in ((x, v), (y, w)))
        keys.append(x)
        values.append(y)
    weight = torch.eye(len(keys)) * norm.cpu()[:, None, None]
    return Edits([site.head] * len(keys), passage, position, torch.stack(keys, 1), torch.stack(values, 1), weight)


def overlaps(change: Tensor, top: int) -> Tensor:
    """Share of the `top` most moved tokens that the first condition has in common with each other one.

    `change` is `[R, C, vocabulary]`; the mean over the vocabulary is taken off first, because it moves no probability.
    """
    moved = torch.abs(change - change.mean(-1, keepdim=True))
    best = torch.zeros_like(moved, dtype=torch.bool).scatter(-1, moved.topk(top).indices, True)
    return (best[:, :1] & best[:, 1:]).sum(-1).double() / top


def summarise(records: pd.DataFrame, config: SelectivityConfig) -> SelectivitySummary:
    """The summary of the records."""
    means = 1 - records.groupby("feature")[[f"overlap_{name}" for name in AGAINST]].mean()
    atoms = means.index.to_numpy()
    return SelectivitySummary(
        atoms=len(means),
        selectivity={name: float(means[f"overlap_{name}"].mean()) for name in AGAINST},
        intervals={name: clustered(means[f"overlap_{name}"].to_numpy(), atoms, config.seed) for name in AGAINST},
    )
