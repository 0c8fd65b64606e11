"""What capture and training cost before anything runs: tokens, bytes and hours, from rates that were measured or are
stated. Free of torch.

A forward pass takes two operations a parameter and token. A training step's arithmetic is that of its matrix products
(docs/LOG.md, "training step"); its time is that of the nearest step that was measured on the machine, scaled by it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

CHUNK = 64
"""Tokens that share one rebuilt state in a step on states."""
Kind = Literal["state", "write"]


@dataclass(frozen=True)
class Shape:
    """A host, as far as its cost goes."""

    parameters: float
    """That a token passes through."""
    layers: int
    """That keep a matrix state."""
    heads: int
    """A layer."""
    d_k: int
    d_v: int
    vector_decay: bool = False
    """One decay a key channel, in place of one a head."""

    def bytes_a_token(self, width: int = 2) -> int:
        """Of one layer in a store, keys and updates in numbers of `width` bytes, before compression."""
        return self.heads * ((self.d_k + self.d_v) * width + 4 * (self.d_k if self.vector_decay else 1) + 4)


PUBLISHED: Mapping[str, Shape] = {
    "Qwen/Qwen3.5-0.8B": Shape(0.75e9, 18, 16, 128, 128),
    "Qwen/Qwen3.5-4B": Shape(4.2e9, 24, 32, 128, 128),
    "Qwen/Qwen3.5-27B": Shape(26.9e9, 48, 48, 128, 128),
    "fla-hub/delta_net-1.3B-100B": Shape(1.37e9, 24, 16, 128, 128),
    "state-spaces/mamba2-370m": Shape(0.37e9, 48, 32, 128, 64),
    "state-spaces/mamba2-2.7b": Shape(2.7e9, 64, 80, 128, 64),
    "fla-hub/rwkv7-1.5B-world": Shape(1.53e9, 24, 32, 64, 64, vector_decay=True),
}
"""Hosts of the paper, for a plan where the host itself is not at hand."""


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
MACHINES: Mapping[str, Machine] = {"cpu": CORE, "cuda": H100}


def operations(kind: Kind, features: int, d_k: int, d_v: int) -> float:
    """Of a step's matrix products, a token."""
    products = 2.0 * features * (d_k + d_v)
    if kind == "write":
        return products
    return products + 2.0 * features * d_k * d_v / CHUNK + 2.0 * (CHUNK + 1) * features


def train_seconds(
    machine: Machine, kind: Kind, features: int, d_k: int, d_v: int, tokens: float, rank: int = 1, dense: int = 0
) -> float:
    """Of one dictionary that sees `tokens` tokens, repeated ones counted; `dense` of its encoder and decoder, 0 to 2,
    are whole matrices."""
    mine = operations(kind, features, d_k, d_v)
    known = [step for step in machine.steps if step.kind == kind] or list(machine.steps)
    work = {step: operations(step.kind, step.features, step.d, step.d) for step in known}
    near = min(known, key=lambda step: abs(math.log(work[step] / mine)))
    factored = rank * mine / work[near] / near.rate
    return tokens * (factored + dense * 2.0 * features * d_k * d_v / machine.dense)


def capture_seconds(machine: Machine, parameters: float, tokens: float) -> float:
    """Of one pass over a text; a pass ends at the last layer that is wanted, which is not counted here."""
    return 2.0 * parameters * tokens / machine.forward


def duration(seconds: float) -> str:
    """In the unit that suits it: "40 s", "12 min", "3.4 h", "5 days"."""
    for unit, size, below in (("s", 1, 90), ("min", 60, 90 * 60), ("h", 3600, 48 * 3600)):
        if seconds < below:
            value = seconds / size
            return f"{value:.1f} {unit}" if unit == "h" else f"{math.ceil(value)} {unit}"
    return f"{seconds / 86400:.0f} days"


def size(count: float) -> str:
    """Bytes in words: "340 MB", "1.2 TB"."""
    for unit, step in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= step:
            return f"{count / step:.{0 if count >= 100 * step else 1}f} {unit}"
    return f"{count / 1e3:.0f} kB"
