"""The dictionaries that claims are about, each trained once: names, and how they are made."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from writesae.hosts import Layer
from writesae.reproduce.sizes import Sizes
from writesae.sae import SAE
from writesae.store import StreamStore
from writesae.training import TrainConfig, TrainResult, train_many
from writesae.training.recipe import recipe
from writesae.types import Site

KINDS: Mapping[str, Mapping[str, Any]] = {
    "states": {"target": "state"},
    "writes": {"target": "write-delta"},
    "flat": {"target": "state", "preset": "flat"},
    "matrix": {"target": "state", "preset": "matrix"},
    "bilinear-flat": {"target": "state", "preset": "bilinear_flat"},
    "tied": {"target": "state", "preset": "bilinear_tied"},
    "rank2": {"target": "state", "preset": "writesae_rank2"},
    "rank4": {"target": "state", "preset": "writesae_rank4"},
    "batchtopk": {"target": "state", "sparsity": "batch-topk"},
    "jumprelu": {"target": "state", "sparsity": "jumprelu"},
}
"""What is modelled and how, where it is not the paper's primary variant; `k8` is `states` with 8 active atoms."""
VARIANTS = ("states", "flat", "matrix", "bilinear-flat", "tied", "rank2", "rank4")
"""Of the tables of encoders and ranks, over layers."""
SHIPPED = "shipped"
"""In a name: a dictionary that comes with the package."""


@dataclass(frozen=True)
class Heads:
    """Where dictionaries are trained on one host."""

    main: Site
    """The audited head, or the published one."""
    layer: tuple[Site, ...]
    """All heads of its layer."""
    layers: tuple[Site, ...]
    """One head of every part of the model, the main one among them, by layer."""


def config(name: str, heads: Heads, layers: Mapping[int, Layer], sizes: Sizes) -> TrainConfig:
    """Of the dictionary `KIND/SEED`, or `KIND/SEED/SITE` at another head than the main one."""
    kind, seed, *at = name.split("/")
    site, k = Site.parse(at[0]) if at else heads.main, re.fullmatch(r"k(\d+)", kind)
    own = dict(KINDS["states" if k else kind])
    if kind != "jumprelu":  # its penalty decides
        own["k"] = int(k[1]) if k else sizes.k
    if own["target"] == "write-delta" and layers[site.layer].two_writes:
        own["target"] = "write-value"
    steps = max(1, sizes.train_tokens // sizes.batch)
    return recipe(None, own | sizes.recipe | {
        "site": site, "seed": int(seed), "features": sizes.features, "steps": steps, "batch": sizes.batch,
        "validate_every": max(1, steps // 4),
    })  # fmt: skip


def trained(
    store: StreamStore,
    configs: Mapping[str, TrainConfig],
    folder: Path,
    workers: int,
    ended: Callable[[TrainResult], None],
) -> dict[str, SAE]:
    """All of them, `workers` at a time; what is trained is loaded."""
    if not configs:
        return {}
    places = [place(folder, name) for name in configs]
    results = train_many(store, list(configs.values()), places, workers=min(workers, len(places)), ended=ended)
    return {name: result.sae for name, result in zip(configs, results, strict=True)}


def place(folder: Path, name: str) -> Path:
    """Where a dictionary's run is."""
    return folder / name.replace("/", "-")


def given(words: Sequence[str], heads: Heads, sizes: Sizes) -> list[list[str]]:
    """The dictionaries of every result of a measurement, from its words (`bindings.Measurement`)."""
    if not words:
        return [[]]
    groups: list[list[str]] = []
    for word in words:
        kind, _, seed = word.partition("/")
        every = [f"{kind}/{number}" for number in range(max(2, sizes.seeds) if seed == "+" else sizes.seeds)]
        if kind in ("layer", "layers", "cells"):
            sites = {"layer": heads.layer, "layers": heads.layers}.get(kind, heads.layer + heads.layers)
            seeds = range(sizes.table_seeds if kind == "layers" else 1)
            groups += [[_at(f"{seed}/{n}", site, heads)] for site in dict.fromkeys(sites) for n in seeds]
        elif kind == "ks":
            groups += [[f"k{k}/{seed}"] for k in sizes.ks]
        elif seed == "+":
            groups.append(every)
        else:
            groups += [[one] for one in every] if seed == "*" else [word.split()]
    return groups


def _at(name: str, site: Site, heads: Heads) -> str:
    """A dictionary at a head; that of the main head is the same as the one without a head in its name."""
    return name if site == heads.main else f"{name}/{site}"
