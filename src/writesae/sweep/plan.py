"""What a sweep would cost, before anything runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from writesae.errors import InputError
from writesae.hosts.shape import shape_of
from writesae.sweep.config import Sweep
from writesae.sweep.runs import planned
from writesae.training.costs import CORE, H100, Machine, capture_seconds, store_bytes, tokens_seen, train_seconds


@dataclass(frozen=True)
class Cost:
    """Of one host."""

    host: str
    runs: int
    layers: int
    """That are captured."""
    tokens: int
    """In the store."""
    bytes: int
    """Of it, before compression."""
    seen: float
    """Tokens in training, by all runs together, repeated ones counted."""
    capture: float
    """Seconds of the machine."""
    train: float
    """Seconds of the machine, all runs one after another; evaluations are not counted."""


def machine(device: str) -> Machine:
    """Whose rates a plan is made with; raises InputError for a device of which there are none."""
    if device.partition(":")[0] not in ("cpu", "auto", "cuda"):
        raise InputError(f"no rates are known of {device!r}: a plan is for cpu or cuda")
    return H100 if device.startswith("cuda") else CORE


def costs(plan: Sweep, device: str) -> list[Cost]:
    """Of every host, by its shape alone.

    Raises InputError for a host whose shape is not known, and what running the sweep raises for a run that cannot be.
    """
    found, on = [], machine(device)
    for name in plan.hosts:
        shape = shape_of(name)
        configs = [run.config for run in planned(plan, shape.layers)]
        captured = {config.site.layer for config in configs}
        seen = [tokens_seen(config, plan.tokens) for config in configs]
        train = [train_seconds(on, c, shape.layers[c.site.layer], x) for c, x in zip(configs, seen, strict=True)]
        size = sum(store_bytes(shape.layers[layer], plan.tokens) for layer in captured)
        capture = capture_seconds(on, shape.parameters, plan.tokens)
        found.append(Cost(name, len(configs), len(captured), plan.tokens, size, sum(seen), capture, sum(train)))
    return found


def total(found: Sequence[Cost]) -> float:
    """Seconds of one machine for all of it."""
    return sum(one.capture + one.train for one in found)
