"""What a sweep would cost, before anything runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from writesae.costs import CORE, H100, PUBLISHED, Kind, Machine, Shape, capture_seconds, train_seconds
from writesae.errors import InputError
from writesae.hosts import load
from writesae.hosts.sources import find
from writesae.sae.config import Flat, Linear
from writesae.sweep.config import Sweep
from writesae.sweep.runs import Sized, planned
from writesae.training.config import EPOCHS, TrainConfig


@dataclass(frozen=True)
class Cost:
    """Of one host."""

    host: str
    runs: int
    layers: int
    """That are captured."""
    tokens: int
    """In the store."""
    bytes: float
    """Of it, before compression."""
    seen: float
    """Tokens in training, by all runs together, repeated ones counted."""
    capture: float
    """Seconds of the machine."""
    train: float
    """Seconds of the machine, all runs one after another; evaluations are not counted."""


def machine(device: str) -> Machine:
    """Whose rates a plan is made with."""
    return H100 if device.startswith("cuda") else CORE


def costs(plan: Sweep, device: str) -> list[Cost]:
    """Of every host: by its own shape where its files are here, by its published one elsewhere.

    Raises InputError for a host of which neither is known, and what running the sweep raises for a run that cannot be.
    """
    found = []
    for name in plan.hosts:
        layers, shape = _shape(name)
        on = machine(device)
        runs = planned(plan, layers)
        captured = {run.config.site.layer for run in runs}
        seen = [_seen(run.config, plan.tokens) for run in runs]
        seconds = sum(_train(on, run.config, layers, x) for run, x in zip(runs, seen, strict=True))
        found.append(
            Cost(
                name, len(runs), len(captured), plan.tokens, float(plan.tokens * len(captured) * shape.bytes_a_token()),
                sum(seen), capture_seconds(on, shape.parameters, plan.tokens), seconds,
            )
        )  # fmt: skip
    return found


def _train(on: Machine, config: TrainConfig, layers: Mapping[int, Sized], tokens: float) -> float:
    own = layers[config.site.layer]
    dense = isinstance(config.encoder, Linear) + isinstance(config.decoder, Flat)
    rank = getattr(config.encoder, "rank", 1)
    kind: Kind = "state" if config.target == "state" else "write"
    return train_seconds(on, kind, config.features, own.d_k, own.d_v, tokens, rank, dense)


def _seen(config: TrainConfig, tokens: int) -> float:
    if config.steps is not None:
        return float(config.steps * config.batch)
    return (config.epochs or EPOCHS) * tokens * (1 - config.validation)


def _shape(name: str) -> tuple[Mapping[int, Sized], Shape]:
    """The layers of a host, and its size."""
    if name in PUBLISHED:
        shape = PUBLISHED[name]
        return dict.fromkeys(range(2 * shape.layers), shape), shape  # which layers keep a state is not looked up
    try:
        find(name, None)
    except InputError as error:
        raise InputError(f"{error}; a plan also knows {', '.join(PUBLISHED)}") from None
    host = load(name)
    layer = next(iter(host.layers.values()))
    count = sum(weights.numel() for weights in host.model.parameters())
    return host.layers, Shape(count, len(host.layers), layer.heads, layer.d_k, layer.d_v)


def total(found: Sequence[Cost]) -> float:
    """Seconds of one machine for all of it."""
    return sum(one.capture + one.train for one in found)
