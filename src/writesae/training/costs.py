"""What capture and training cost before anything runs: bytes and seconds, from rates that were measured or are stated.

A forward pass takes two operations a parameter and token. A training step's arithmetic is that of its matrix products
(docs/LOG.md, "training step"); its time is that of the nearest step that was measured on the machine, scaled by it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol

from writesae.sae.config import Flat, Linear
from writesae.training.config import EPOCHS, TrainConfig

CHUNK = 64
"""Tokens that share one rebuilt state in a step on states."""
CHANNELS = ("gla", "kda", "rwkv7")
"""Families with a decay a key channel."""
Kind = Literal["state", "write"]


class Sized(Protocol):
    """A layer, as far as its cost goes."""

    @property
    def family(self) -> str:
        """Its recurrence."""

    @property
    def heads(self) -> int:
        """Heads."""

    @property
    def d_k(self) -> int:
        """Rows of a head's matrix."""

    @property
    def d_v(self) -> int:
        """Its columns."""


@dataclass(frozen=True)
class Step:
    """A training step that was measured: tokens a second of one dictionary."""

    kind: Kind
    features: int
    d: int
    rate: float


@dataclass(frozen=True)
class Machine:
    """One core or one card."""

    name: str
    forward: float
    """Operations a second in a host's forward pass, float32."""
    dense: float
    """Operations a second in a step's products with whole matrices (a dense encoder, full-matrix atoms)."""
    assumed: str
    """What of these rates was not measured."""
    steps: tuple[Step, ...]


CORE = Machine(
    "one core of an AMD EPYC (113 GFLOP/s in matrix products)", 45e9, 30e9, "",
    (
        Step("state", 256, 32, 82e3), Step("state", 1024, 32, 50e3), Step("state", 4096, 32, 23e3),
        Step("state", 2048, 64, 22e3), Step("state", 2048, 128, 7.2e3), Step("state", 16384, 128, 2.3e3),
        Step("write", 256, 32, 100e3), Step("write", 1024, 32, 74e3), Step("write", 4096, 32, 36e3),
        Step("write", 2048, 64, 29e3), Step("write", 2048, 128, 15e3), Step("write", 16384, 128, 3.7e3),
    ),
)  # fmt: skip
"""Processor time. Captures of tiny-gdn, tiny-mamba2 and memory-gdn ran at 38 to 53 GFLOP/s, steps with whole matrices
at 15 to 35 (2,048 features of 128 x 128)."""
H100 = Machine(
    "one NVIDIA H100", 15e12, 8e12, "capture, and training with whole matrices",
    (Step("state", 2048, 128, 0.89e6), Step("state", 16384, 128, 0.476e6)),
)  # fmt: skip
"""Training with factors was measured (float32, 4,096 tokens a step); what was not is taken for 30 and 15% of the 51
TFLOP/s that are stated for the card. Steps on writes were not either, and are taken for as long as those on states."""


def operations(kind: Kind, features: int, d_k: int, d_v: int) -> float:
    """Of a step's matrix products, a token."""
    products = 2.0 * features * (d_k + d_v)
    if kind == "write":
        return products
    return products + 2.0 * features * d_k * d_v / CHUNK + 2.0 * (CHUNK + 1) * features


def train_seconds(machine: Machine, config: TrainConfig, layer: Sized, tokens: float) -> float:
    """Of one dictionary of a head of that layer, which sees `tokens` tokens, repeated ones counted."""
    kind: Kind = "state" if config.target == "state" else "write"
    mine = operations(kind, config.features, layer.d_k, layer.d_v)
    known = [step for step in machine.steps if step.kind == kind] or list(machine.steps)
    work = {step: operations(step.kind, step.features, step.d, step.d) for step in known}
    near = min(known, key=lambda step: abs(math.log(work[step] / mine)))
    factored = getattr(config.encoder, "rank", 1) * mine / work[near] / near.rate
    whole = isinstance(config.encoder, Linear) + isinstance(config.decoder, Flat)
    return tokens * (factored + whole * 2.0 * config.features * layer.d_k * layer.d_v / machine.dense)


def tokens_seen(config: TrainConfig, stored: int) -> float:
    """Tokens of a run on a store of `stored` tokens, repeated ones counted."""
    if config.steps is not None:
        return float(config.steps * config.batch)
    return (config.epochs or EPOCHS) * stored * (1 - config.validation)


def capture_seconds(machine: Machine, parameters: float, tokens: float) -> float:
    """Of one pass over a text; that a pass ends at the last layer that is wanted is not counted."""
    return 2.0 * parameters * tokens / machine.forward


def store_bytes(layer: Sized, tokens: int, width: int = 2) -> int:
    """Of a layer in a store, keys and updates in numbers of `width` bytes, before compression."""
    decays = layer.d_k if layer.family in CHANNELS else 1
    return tokens * layer.heads * ((layer.d_k + layer.d_v) * width + 4 * decays + 4)
