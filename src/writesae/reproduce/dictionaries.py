"""The dictionaries that claims are about, each trained once: names, and how they are made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from writesae.hosts import Host
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
    "batchtopk": {"target": "state", "sparsity": "batch-topk"},
    "jumprelu": {"target": "state", "sparsity": "jumprelu"},
}
"""What is modelled and how, where it is not the paper's primary variant."""


def config(name: str, site: Site, host: Host, sizes: Sizes) -> TrainConfig:
    """Of the dictionary `KIND/SEED`, or `KIND/SEED/SITE` at another head than the one that the audit chose."""
    kind, seed, *at = name.split("/")
    own = dict(KINDS[kind])
    if "sparsity" not in own or own["sparsity"] == "batch-topk":
        own["k"] = sizes.k
    if own["target"] == "write-delta" and host.layers[site.layer].two_writes:
        own["target"] = "write-value"
    steps = max(1, sizes.train_tokens // sizes.batch)
    lr = {} if sizes.batch == TrainConfig.batch else {"lr": 3e-3, "lr_end": 3e-4}  # larger batches, larger steps
    return recipe(None, own | lr | {
        "site": Site.parse(at[0]) if at else site, "seed": int(seed), "features": sizes.features, "steps": steps,
        "batch": sizes.batch, "validation": 0.1, "init": "writes", "validate_every": max(1, steps // 4),
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
    places = [folder / name.replace("/", "-") for name in configs]
    results = train_many(store, list(configs.values()), places, workers=min(workers, len(places)), ended=ended)
    return {name: result.sae for name, result in zip(configs, results, strict=True)}


def layer_heads(seed: str, site: Site, host: Host) -> list[str]:
    """The dictionaries of states of a layer's heads; the audited head's own is the same as `states/SEED`."""
    every = [Site(site.layer, head) for head in range(host.layers[site.layer].heads)]
    return [f"states/{seed}" if one == site else f"states/{seed}/{one}" for one in every]
