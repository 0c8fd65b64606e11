"""Does an atom move its own tokens? Overlap of the most moved tokens with those of matched directions (App. D, I.1).

At a firing, the atom, a random rank-1 matrix and one orthogonal to the atom, all of the native write's norm, are
added in turn. Selectivity is one minus the share of the K most moved tokens (by absolute logit change, centred) that
the atom and the other direction have in common.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from writesae.errors import InputError
from writesae.evals.controls import normalize
from writesae.evals.firings import PASSAGES_AT_ONCE, all_firings
from writesae.evals.patching import Edits, patched_logits
from writesae.evals.provenance import provenance
from writesae.evals.result import Result, count
from writesae.evals.stats import Interval, clustered
from writesae.evals.writes import head_writes
from writesae.hosts import Host
from writesae.hosts.fork import NativeRun, native_run
from writesae.sae import SAE
from writesae.types import Protocol, Site

AGAINST = ("random", "orthogonal")


@dataclass(frozen=True)
class SelectivityConfig:
    """Which firings, and how many tokens are compared."""

    atoms: int = 48
    """Atoms, those that fire most often."""
    firings: int = 8
    """Firings of each, drawn at random; atoms with fewer are refused."""
    top: int = 32
    """K, the most moved tokens that are compared."""
    timing: Protocol = "after_token"
    seed: int = 0


@dataclass(frozen=True)
class SelectivitySummary:
    """Means over atoms of their mean over firings."""

    atoms: int
    selectivity: dict[str, float]
    """Against a random and an orthogonal direction."""
    intervals: dict[str, Interval]
    """Bootstrap over atoms."""


def selectivity(
    host: Host, sae: SAE, site: Site, tokens: Tensor, config: SelectivityConfig | None = None
) -> Result[SelectivityConfig, SelectivitySummary]:
    """Measure on passages `[B, T]`; an item is an atom, a record a firing. Raises InputError where no atom fires often
    enough, or K exceeds the vocabulary."""
    config = SelectivityConfig() if config is None else config
    source = provenance(host, site, tokens, sae)
    if not 1 <= config.top <= host.vocabulary:
        raise InputError(f"the {config.top} most moved of {host.vocabulary} tokens were asked for")
    drawn, asked = draw_firings(host, sae, site, tokens, config.atoms, config.firings, config.seed)
    tables = []
    for begin in range(0, len(tokens), PASSAGES_AT_ONCE):
        here = drawn[(drawn.passage >= begin) & (drawn.passage < begin + PASSAGES_AT_ONCE)]
        if len(here):
            run = native_run(host, tokens[begin : begin + PASSAGES_AT_ONCE], site.layer)
            edits = directions(run, sae, site, here.assign(passage=here.passage - begin), config.seed + begin)
            overlap = torch.empty(len(here), len(AGAINST), dtype=torch.float64)
            for scored in patched_logits(run, edits, config.timing):
                change = scored.patched[:, :, 0].double() - scored.native[:, :1].double()
                overlap[scored.which] = overlaps(change, config.top).cpu()
            tables.append(here.assign(**{f"overlap_{name}": overlap[:, i].numpy() for i, name in enumerate(AGAINST)}))
    records = pd.concat(tables, ignore_index=True)
    reasons = count([f"fewer than {config.firings} firings"] * (asked - records.feature.nunique()))
    return Result("selectivity", source, config, asked, reasons, summarise(records, config), records)


def draw_firings(
    host: Host, sae: SAE, site: Site, tokens: Tensor, atoms: int, firings: int, seed: int
) -> tuple[pd.DataFrame, int]:
    """`firings` random firings of each of the `atoms` most frequent atoms, sorted by passage, and how many atoms were
    looked at. Raises InputError where none fires that often at a place that can be scored."""
    fired = all_firings(host, sae, site, tokens)
    inside = fired[(fired.position > 0) & (fired.position < tokens.shape[1] - 2)]
    asked = fired.feature.value_counts().head(atoms).index
    mixed = inside.iloc[np.random.default_rng(seed).permutation(len(inside))]
    mixed = mixed[mixed.feature.isin(asked)]
    enough = mixed.groupby("feature").filter(lambda group: len(group) >= firings)
    if enough.empty:
        raise InputError(f"none of {len(asked)} atoms of {site} fires {firings} times where it can be scored")
    drawn = enough.groupby("feature").head(firings).sort_values(["passage", "position", "feature"])
    return drawn.reset_index(drop=True), len(asked)


def directions(run: NativeRun, sae: SAE, site: Site, here: pd.DataFrame, seed: int) -> Edits:
    """Atom, random and orthogonal direction at each firing, all of the native (delta) write's norm."""
    passage, position, feature = (torch.tensor(here[c].to_numpy()) for c in ("passage", "position", "feature"))
    written = head_writes(run, site.head).written
    key, value = written.key[passage, position], written.update[passage, position]
    norm = key.norm(dim=-1) * value.norm(dim=-1)
    atoms, generator = sae.atoms(), torch.Generator().manual_seed(seed)
    v, w = normalize(atoms.v[feature]), normalize(atoms.w[feature])
    keys, values = [v], [w]
    for name in AGAINST:
        x, y = (normalize(torch.randn(s.shape, generator=generator)).to(s) for s in (v, w))
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
