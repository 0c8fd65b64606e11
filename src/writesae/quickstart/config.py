"""What a quickstart runs. Free of torch, so that the command line can show it at once."""

from __future__ import annotations

from dataclasses import dataclass

from writesae.config import at_least
from writesae.errors import ConfigError
from writesae.types import Site, Target

TARGETS: dict[str, Target] = {"state": "state", "write": "write-delta"}
"""Name in the results -> the matrix that the dictionary models."""
HOST = "memory-gdn"
"""The host of the first chapter."""
NAMES, THINGS, FACTS = 11, 33, 8
"""What it is told: few enough pairs that 1,024 features have room for an atom a pair."""
TAUGHT, SEED = 6000, (2_000_003, 0)
"""Passages that its dictionaries are trained on, and their seed; no test draws with it."""


@dataclass(frozen=True)
class QuickstartConfig:
    """The settings of one quickstart; two runs with equal settings give equal numbers."""

    host: str = "tiny-gdn"
    """An embedded host's name, a folder, or a Hub id."""
    site: str | None = None
    """Head to train on, like L5.H0; by default the audit chooses."""
    seed: int = 0
    """Of everything random."""
    tokens: int = 200_000
    """Tokens to capture for training."""
    length: int = 256
    """Tokens a sequence and a passage."""
    features: int = 1024
    """Atoms a dictionary."""
    k: int = 16
    """Active atoms a token."""
    batch: int = 2048
    """Tokens a training step. The published recipe's 256 would leave a CPU mostly waiting."""
    train_tokens: int = 1_000_000
    """Tokens seen in training, with repetition, a dictionary."""
    firings: int = 1200
    """Writes replaced in the substitution test, a dictionary."""
    passages: int = 64
    """Held-out passages from which they are drawn."""
    atoms: int = 24
    """Atoms described in the report, a dictionary."""
    memory_passages: int = 12
    """Passages of facts in the first chapter."""
    train: bool = False
    """Train the first chapter's dictionaries anew, in place of those that ship."""
    workers: int = 2
    """Dictionaries that are trained at a time, each in a process of its own. Changes no number."""

    def __post_init__(self) -> None:
        at_least(
            self,
            tokens=1,
            length=8,
            features=1,
            k=1,
            batch=1,
            train_tokens=1,
            firings=1,
            passages=1,
            atoms=1,
            memory_passages=2,
            workers=1,
        )
        if self.site is not None:
            Site.parse(self.site)
        if self.k > self.features:
            raise ConfigError(f"k = {self.k} active features of {self.features}: give more features or a smaller k")
