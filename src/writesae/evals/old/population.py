"""The substitution test atom by atom: alive atoms sampled by class, a few firings each (paper F.2 and H)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from writesae.causal.budget import PASSAGES, passages_at_once
from writesae.causal.writes import head_writes
from writesae.errors import InputError
from writesae.evals.common.controls import NEEDS_BACKGROUND, Background, ScoredHead, background
from writesae.evals.common.firings import all_firings, gather
from writesae.evals.common.stats import Interval, Test, clustered, mann_whitney, spearman
from writesae.evals.old.partition import PartitionConfig, labels
from writesae.evals.old.partition import portraits as portrait_table
from writesae.evals.old.parts import Parts
from writesae.evals.old.population_config import PopulationConfig as PopulationConfig
from writesae.evals.old.provenance import provenance
from writesae.evals.old.result import Result, count
from writesae.evals.old.substitution_score import score_firings
from writesae.hosts import Host
from writesae.hosts.fork import native_run
from writesae.sae import SAE
from writesae.types import Site, Timing

CLASSES = ("register", "bundle")


@dataclass(frozen=True)
class ClassSummary:
    """The atoms of one class."""

    atoms: int
    win_rate: float
    """Mean over atoms of their share of firings where the atom beats deletion."""
    firings_per_10k: float
    """Median over atoms of all firings a 10,000 tokens."""
    top1_disruption: float
    """Mean over atoms of the share of firings where deletion changes the most likely token."""
    gap: float
    """Median over atoms of their median KL_delete - KL_atom."""


@dataclass(frozen=True)
class PopulationSummary:
    """One timing."""

    atoms: int
    win_rate: float
    """Mean over atoms."""
    interval: Interval
    """Bootstrap over atoms."""
    deciles: tuple[float, ...]
    """Of the atoms' win rates: 0 %, 10 %, ... 100 %."""
    classes: dict[str, ClassSummary]
    by_cosine: dict[str, tuple[int, float]]
    """Bin of the atom's median cosine -> atoms in it, their mean win rate."""
    register_against_bundle: Test
    """Mann-Whitney on the atoms' win rates."""
    cosine_correlation: Test
    """Spearman, the atoms' win rates against their median cosines."""


def population(
    host: Host,
    sae: SAE,
    site: Site,
    tokens: Tensor,
    config: PopulationConfig | None = None,
    folder: Path | None = None,
) -> Result[PopulationConfig, dict[Timing, PopulationSummary]]:
    """Score atoms on passages `[B, T]`; an item is a sampled atom, a record one firing under one timing.

    In `folder` finished passages are kept, and a run that was stopped goes on there. Raises InputError where no atom
    has enough firings.
    """
    config = PopulationConfig() if config is None else config
    source = provenance(host, site, tokens, sae, states=True)
    protocol = config.protocol
    asked = replace(config, protocol=replace(protocol, memory=None))
    parts = Parts.open(folder, "population", source, asked)
    fired = all_firings(host, sae, site, tokens, protocol.native_write, protocol.memory)
    portraits = portrait_table(fired, sae.config.features, 0)
    kind = labels(portraits, PartitionConfig(seed=config.seed))
    chosen = _sample(kind, config)
    room = tokens.shape[1] - 1 - protocol.horizon
    usable = fired[fired.feature.isin(chosen) & (fired.position > 0) & (fired.position < room)]
    rng = np.random.default_rng(config.seed)
    drawn = usable.iloc[rng.permutation(len(usable))].groupby("feature").head(config.most)
    enough = drawn.groupby("feature").size().reindex(chosen, fill_value=0) >= config.fewest
    kept = drawn[drawn.feature.map(enough)].sort_values(["passage", "position", "feature"])
    if kept.empty:
        raise InputError(
            f"none of {len(chosen)} sampled atoms of {site} has {config.fewest} firings that can be scored: "
            "pass more text or ask for fewer firings"
        )
    at_once = passages_at_once(host, tokens.shape[1], site.layer, protocol.memory)

    @cache
    def common() -> Background | None:
        if not NEEDS_BACKGROUND.intersection(protocol.controls):
            return None
        return background(host, sae, site, tokens, protocol.native_write, at_once)

    tables = []
    for begin in range(0, len(tokens), PASSAGES):
        here = kept[(kept.passage >= begin) & (kept.passage < begin + PASSAGES)]
        if len(here):
            make = partial(_score, host, sae, site, tokens, here, at_once, config, common)
            tables.append(parts.get(f"passages-{begin}", make))
    records = pd.concat(tables, ignore_index=True)
    about = portraits.set_index("feature")
    records["class"] = records.feature.map(kind)
    records["atom_cosine"] = records.feature.map(about.cosine)
    records["per_10k"] = records.feature.map(about.firings) / tokens.numel() * 1e4
    refused = count(["" if ok else f"fewer than {config.fewest} firings" for ok in enough])
    return Result("population", source, config, len(chosen), refused, summarise(records, config), records)


def _sample(kind: dict[int, str], config: PopulationConfig) -> list[int]:
    """Atoms drawn evenly from the classes; what one class lacks the other gives."""
    rng = np.random.default_rng(config.seed)
    drawn = {name: rng.permutation([f for f, k in kind.items() if k == name]).tolist() for name in CLASSES}
    order = sorted(CLASSES, key=lambda name: len(drawn[name]))
    first = drawn[order[0]][: config.atoms // 2]
    return sorted(first + drawn[order[1]][: config.atoms - len(first)])


def _score(
    host: Host,
    sae: SAE,
    site: Site,
    tokens: Tensor,
    here: pd.DataFrame,
    at_once: int,
    config: PopulationConfig,
    common: Callable[[], Background | None],
) -> pd.DataFrame:
    tables = []
    for begin in range(int(here.passage.min()), int(here.passage.max()) + 1, at_once):
        part = here[(here.passage >= begin) & (here.passage < begin + at_once)]
        if len(part):
            run = native_run(host, tokens[begin : begin + at_once], site.layer)
            writes = head_writes(run, site.head)
            passage, position, feature = (torch.tensor(part[c].to_numpy()) for c in ("passage", "position", "feature"))
            coefficient = torch.tensor(part.coefficient.to_numpy()).to(writes.value)
            form = config.protocol.native_write
            firings = gather(sae, writes, passage - begin, position, feature, coefficient, form)
            head = ScoredHead(site, sae, writes, firings, common=common())
            tables.append(score_firings(run, [head], config.protocol, begin))
    return pd.concat(tables, ignore_index=True)


def by_atom(records: pd.DataFrame) -> pd.DataFrame:
    """One row an atom: firings, win rate, disruption, gap, class, cosine, breadth."""
    table = records.assign(win=records.kl_atom < records.kl_delete, gap=records.kl_delete - records.kl_atom)
    by = table.groupby("feature")
    return pd.DataFrame(
        {
            "n": by.size(),
            "win_rate": by.win.mean(),
            "top1_disruption": by.top1_delete.mean(),
            "gap": by.gap.median(),
            "class": by["class"].first(),
            "cosine": by.atom_cosine.first(),
            "per_10k": by.per_10k.first(),
        }
    )


def summarise(records: pd.DataFrame, config: PopulationConfig) -> dict[Timing, PopulationSummary]:
    """The summary of the records, by timing."""
    timings = config.protocol.timings
    return {timing: _summarise(records[records.protocol == timing], config) for timing in timings}


def _summarise(records: pd.DataFrame, config: PopulationConfig) -> PopulationSummary:
    atoms = by_atom(records)
    groups = {name: atoms[atoms["class"] == name] for name in CLASSES}
    bins = {}
    for low, high in zip(config.bins[:-1], config.bins[1:], strict=True):
        inside = atoms[(atoms.cosine >= low) & (atoms.cosine < high)]
        bins[f"{low} to {high}"] = (len(inside), float(inside.win_rate.mean()))
    return PopulationSummary(
        atoms=len(atoms),
        win_rate=float(atoms.win_rate.mean()),
        interval=clustered(atoms.win_rate.to_numpy(), atoms.index.to_numpy(), config.seed),
        deciles=tuple(float(q) for q in np.quantile(atoms.win_rate, np.linspace(0, 1, 11))),
        classes={
            name: ClassSummary(
                len(group),
                float(group.win_rate.mean()),
                float(group.per_10k.median()),
                float(group.top1_disruption.mean()),
                float(group.gap.median()),
            )
            for name, group in groups.items()
        },
        by_cosine=bins,
        register_against_bundle=mann_whitney(*(groups[name].win_rate.to_numpy() for name in CLASSES)),
        cosine_correlation=spearman(atoms.win_rate.to_numpy(), atoms.cosine.to_numpy()),
    )
