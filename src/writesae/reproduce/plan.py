"""What a reproduction would cost, without running it: tokens, bytes, and hours by rates that were measured."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from writesae.errors import InputError
from writesae.evals import EVALUATIONS
from writesae.hosts import EMBEDDED, load
from writesae.hosts.host import Layer, find_layers
from writesae.hosts.registry import known_architectures
from writesae.hosts.sources import in_cache
from writesae.reproduce.bindings import BINDINGS, MEASUREMENTS
from writesae.reproduce.config import ReproduceConfig
from writesae.reproduce.dictionaries import SHIPPED, Heads, config, given
from writesae.reproduce.run import AUDIT_PASSAGES, asked_of, options_of
from writesae.reproduce.sizes import Sizes
from writesae.sae.config import Linear
from writesae.training import TrainConfig
from writesae.types import Site


@dataclass(frozen=True)
class Rates:
    """How fast a machine is. A training step on states takes `entry` seconds for every token and entry of the state,
    and `factor` for every token, feature and entry of its two vectors; a dense encoder's products `dense` a second."""

    forward: float
    """Multiply-adds a second of a host's forward pass, times two."""
    entry: float
    factor: float
    dense: float


MACHINES = {
    "2 CPU cores": Rates(1.2e11, 3.4e-9, 4.1e-11, 1e11),
    "one H100": Rates(3e13, 6e-11, 2.7e-13, 3e13),
}
"""CPU: steps of 256 tokens at d = 128 in 36 ms (2,048 features) and 117 ms (16,384) a core, a dense one in 1.1 s, 512
tokens of a 0.75 B host in 6 to 9 s. H100: 4,096 tokens in 4.6 and 8.6 ms (docs/LOG.md); its forward and dense rates are
stated, not measured."""


START = 2.0
"""Seconds that a dictionary or a result takes beside its work."""


@dataclass(frozen=True)
class Shape:
    """What of a host decides the cost."""

    layers: Mapping[int, Layer]
    parameters: int
    source: str
    """Where this is known from."""


QWEN = tuple(index for index in range(24) if index % 4 != 3)
STATED = {
    "Qwen/Qwen3.5-0.8B": (752_000_000, QWEN, 16, 128, 128, "gated-deltanet"),
    "Qwen/Qwen3.5-4B": (4_206_000_000, tuple(i for i in range(32) if i % 4 != 3), 32, 128, 128, "gated-deltanet"),
    "Qwen/Qwen3.5-27B": (26_900_000_000, tuple(i for i in range(64) if i % 4 != 3), 48, 128, 128, "gated-deltanet"),
    "AntonV/mamba2-370m-hf": (368_000_000, tuple(range(48)), 32, 128, 64, "mamba2"),
    "fla-hub/delta_net-1.3B-100B": (1_366_000_000, tuple(range(24)), 16, 128, 128, "deltanet"),
    "fla-hub/gla-1.3B-100B": (1_366_000_000, tuple(range(24)), 4, 256, 512, "gla"),
    "fla-hub/rwkv7-1.5B-world": (1_527_000_000, tuple(range(24)), 32, 64, 64, "rwkv7"),
}
"""Published hosts: parameters, recurrent layers, heads, d_k, d_v, family."""


@dataclass(frozen=True)
class Cost:
    """Of one part of a reproduction on one host."""

    host: str
    part: str
    amount: str
    """What of, in words."""
    tokens: int
    """Run through the host, or seen in training."""
    size: int
    """Bytes that stay on the disk."""
    hours: Mapping[str, float]
    """Machine -> hours."""


def shape_of(name: str) -> Shape:
    """The shape of a host, without its weights and without the network.

    Raises InputError for a Hub host that is neither in the cache nor among the published ones.
    """
    if name in EMBEDDED:
        host = load(name)
        return Shape(host.layers, sum(x.numel() for x in host.model.parameters()), "the package")
    folder = Path(name) if Path(name).is_dir() else in_cache(name)
    if folder is not None:
        with torch.device("meta"):
            config_there = AutoConfig.from_pretrained(folder).get_text_config()
            model = AutoModelForCausalLM.from_config(config_there)  # type: ignore[no-untyped-call]
        return Shape(find_layers(model), sum(x.numel() for x in model.parameters()), f"its config in {folder}")
    if name not in STATED:
        raise InputError(
            f"{name} is neither on this machine nor in the Hub's cache, and only the shapes of {', '.join(STATED)} are "
            "known without: fetch its config.json once (hf download NAME config.json)"
        )
    parameters, indices, heads, d_k, d_v, family = STATED[name]
    kind = next(one for one in known_architectures() if one.family == family)
    layers = {i: Layer(i, family, heads, d_k, d_v, name=f"layers.{i}", architecture=kind) for i in indices}
    return Shape(layers, parameters, "its published shape")


def plan(asked: ReproduceConfig) -> list[Cost]:
    """The cost of every part on every host."""
    return [cost for name, own in asked_of(asked).items() for cost in _on_host(name, shape_of(name), own)]


def _on_host(name: str, shape: Shape, asked: ReproduceConfig) -> list[Cost]:
    sizes, layers = asked.sizes, shape.layers
    family = next(iter(layers.values())).family
    heads = _heads(shape, asked)
    fits = [
        one for one in BINDINGS if one.claim in asked.wanted() and one.family in ("", family) and one.host in ("", name)
    ]
    measured = list(dict.fromkeys(ask for one in fits for ask in one.asks if ask != "spectrum"))
    named = [one for ask in measured for group in given(MEASUREMENTS[ask].dictionaries, heads, sizes) for one in group]
    kinds = {one: config(one, heads, layers, sizes) for one in dict.fromkeys(named) if not one.startswith(SHIPPED)}
    captured = [layers[index] for index in sorted({site.layer for site in (heads.main, *heads.layers)})]
    numbers = sum(layer.heads * (2 * (layer.d_k + layer.d_v) + 8) for layer in captured)
    counts = Counter(one.partition("/")[0] for one in kinds)
    told = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    results = {ask: len(given(MEASUREMENTS[ask].dictionaries, heads, sizes)) for ask in measured}
    through = sum(_rows(ask, sizes) * count for ask, count in results.items())
    every = sum(1 if layer.one_site else layer.heads for layer in layers.values())
    audit = AUDIT_PASSAGES * sizes.length * every // 4
    forwards = f"{len(measured)} measurements of {len(fits)} claims at {heads.main}"
    costs = [
        Cost(name, "audit", f"{every} heads, {AUDIT_PASSAGES} passages; shape from {shape.source}", audit, 0,
             _forward(shape, audit)),
        Cost(name, "measure", forwards, through, 0,
             _forward(shape, through, sum(results.values()))),
    ]  # fmt: skip
    if kinds:
        weights = sum(_bytes(one, layers[one.site.layer]) for one in kinds.values())
        hours = {
            machine: sum(START + _training(one, layers[one.site.layer], sizes, rates) for one in kinds.values()) / 3600
            for machine, rates in MACHINES.items()
        }
        text = f"{sizes.corpus}, layers {', '.join(str(layer.index) for layer in captured)}"
        costs[1:1] = [
            Cost(name, "capture", text, sizes.tokens, sizes.tokens * numbers, _forward(shape, sizes.tokens)),
            Cost(name, "train", f"{len(kinds)} dictionaries of {sizes.features:,} features: {told}",
                 len(kinds) * sizes.train_tokens, weights, hours),
        ]  # fmt: skip
    return costs


def _heads(shape: Shape, asked: ReproduceConfig) -> Heads:
    """The heads, or as many others: which of them the audit would choose is not known before it runs."""
    sites = [Site.parse(site) for site in asked.sizes.sites]
    if asked.site is not None or not sites or not all(site.layer in shape.layers for site in sites):
        indices = list(shape.layers)
        main = Site.parse(asked.site) if asked.site else Site(indices[len(indices) // 2], 0)
        others = [index for index in indices if index != main.layer][: asked.sizes.layers - 1]
        sites = [main, *(Site(index, 0) for index in others)]
    layer = tuple(Site(sites[0].layer, head) for head in range(shape.layers[sites[0].layer].heads))
    return Heads(sites[0], layer, tuple(sites))


PLACES, WAYS = ("firings", "atoms", "places", "most", "targets"), (
    "timings", "native_writes", "readings", "amplitudes", "doses", "epsilons", "magnitudes", "controls",
)  # fmt: skip


def _rows(name: str, sizes: Sizes) -> int:
    """Tokens that a measurement runs through the host: its passages, and a short continuation of every edited place in
    every way."""
    evaluation = EVALUATIONS[MEASUREMENTS[name].evaluation]
    options, passages = options_of(name, sizes)
    asked: Any = evaluation.configured({key: value for key, value in options.items() if key != "site"})
    ways = math.prod(len(getattr(asked, way)) or 2 for way in WAYS if hasattr(asked, way))
    counted = ("firings",) if evaluation.name == "substitution" else PLACES  # it draws tokens
    places = math.prod(getattr(asked, place) for place in counted if getattr(asked, place, None))
    whole = evaluation.name in ("fidelity", "passage_loss", "readers")
    tail = sizes.length if whole else getattr(asked, "new_tokens", 2)
    per_passage = whole or not any(hasattr(asked, place) for place in PLACES)
    return passages * (evaluation.length or sizes.length) + (passages if per_passage else places) * ways * tail


def _forward(shape: Shape, tokens: int, results: int = 1) -> dict[str, float]:
    flops = 2 * shape.parameters * tokens
    return {name: (START * results + flops / rates.forward) / 3600 for name, rates in MACHINES.items()}


def _training(one: TrainConfig, layer: Layer, sizes: Sizes, rates: Rates) -> float:
    """Seconds."""
    entries, vectors = layer.d_k * layer.d_v, layer.d_k + layer.d_v
    rank = getattr(one.decoder, "rank", 1)
    token = rates.entry * (entries if one.target == "state" else vectors) + rates.factor * one.features * vectors * rank
    if isinstance(one.encoder, Linear):
        token += 6 * one.features * entries / rates.dense
    return token * sizes.train_tokens


def _bytes(one: TrainConfig, layer: Layer) -> int:
    """Of its weights, float32, and of the checkpoint with two moments of each."""
    entries, vectors = layer.d_k * layer.d_v, layer.d_k + layer.d_v
    rank = getattr(one.decoder, "rank", 0)
    encoder = entries if isinstance(one.encoder, Linear) else vectors * max(1, rank)
    return 4 * 4 * one.features * (encoder + (vectors * rank if rank else entries))
