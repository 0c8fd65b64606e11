"""What a reproduction would cost, without running it: tokens, bytes, and hours by rates that were measured."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from writesae.evals import EVALUATIONS
from writesae.hosts.host import Layer
from writesae.hosts.shape import Shape, shape_of
from writesae.reproduce.bindings import BINDINGS, MEASUREMENTS
from writesae.reproduce.config import ReproduceConfig
from writesae.reproduce.dictionaries import SHIPPED, Heads, config, given
from writesae.reproduce.run import AUDIT_PASSAGES, asked_of, options_of
from writesae.reproduce.sizes import Sizes
from writesae.sae.config import Linear
from writesae.training import TrainConfig
from writesae.training.costs import CORE, H100, capture_seconds, store_bytes, train_seconds
from writesae.types import Site

MACHINES = {"2 CPU cores": (CORE, 2), "one H100": (H100, 1)}
"""Name -> whose rates, and how many of them."""
START = 2.0
"""Seconds that a dictionary or a result takes beside its work."""


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
            machine: sum(
                START + train_seconds(rates, one, layers[one.site.layer], sizes.train_tokens) / count
                for one in kinds.values()
            )
            / 3600
            for machine, (rates, count) in MACHINES.items()
        }
        text = f"{sizes.corpus}, layers {', '.join(str(layer.index) for layer in captured)}"
        costs[1:1] = [
            Cost(name, "capture", text, sizes.tokens, sum(store_bytes(layer, sizes.tokens) for layer in captured),
                 _forward(shape, sizes.tokens)),
            Cost(name, "train", f"{len(kinds)} dictionaries of {sizes.features:,} features: {told}",
                 len(kinds) * sizes.train_tokens, weights, hours),
        ]  # fmt: skip
    return costs


def _heads(shape: Shape, asked: ReproduceConfig) -> Heads:
    """The heads, or as many others: which of them the audit would choose is not known before it runs."""
    if asked.site is not None:
        shape.check_site(Site.parse(asked.site))
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
    return {
        name: (START * results + capture_seconds(machine, shape.parameters, tokens) / count) / 3600
        for name, (machine, count) in MACHINES.items()
    }


def _bytes(one: TrainConfig, layer: Layer) -> int:
    """Of its weights, float32, and of the checkpoint with two moments of each."""
    entries, vectors = layer.d_k * layer.d_v, layer.d_k + layer.d_v
    rank = getattr(one.decoder, "rank", 0)
    encoder = entries if isinstance(one.encoder, Linear) else vectors * max(1, rank)
    return 4 * 4 * one.features * (encoder + (vectors * rank if rank else entries))
