"""What a result was measured on: enough to know whether two results speak of the same thing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from writesae.types import Site, Target

Allowance = Literal["mismatch", "overlap", "precision"]
"""A refusal that was overruled."""


@dataclass(frozen=True)
class DictionarySource:
    """One dictionary."""

    name: str
    """What it is, from its own record: `writesae L5.H0 state, seed 0`."""
    sha256: str
    """Over its configuration and tensors."""
    site: Site
    """The head at which it was measured."""
    target: Target
    features: int
    overlap: float | None
    """Share of the text's token windows that it was trained on; None where it carries no fingerprint of its text."""


@dataclass(frozen=True)
class TextSource:
    """The passages."""

    corpus: str
    part: str
    """`test of 0.8`, `all`, or how they were given."""
    passages: int
    length: int
    """Tokens a passage."""
    seed: int | None
    """Of the draw; None where the passages were given."""
    sha256: str
    """Over the token ids and their shape."""


@dataclass(frozen=True)
class Provenance:
    """The inputs of an evaluation and what it ran on."""

    host: str
    revision: str
    """SHA-256 over the configuration and weights of the host."""
    dtype: str
    device: str
    sites: tuple[Site, ...]
    """The heads; empty where all are measured."""
    dictionaries: tuple[DictionarySource, ...]
    text: TextSource
    versions: Mapping[str, str]
    budget: float
    """Memory of a batch, GiB: it decides how many runs share one, and so the rounding."""
    allowed: tuple[Allowance, ...] = ()
    """Refusals that were overruled."""

    @property
    def site(self) -> str:
        """The heads in words: `L5.H0`, `L5.H0, L6.H1`, `36 heads`, `every head`."""
        if not self.sites:
            return "every head"
        return ", ".join(map(str, self.sites)) if len(self.sites) < 5 else f"{len(self.sites)} heads"
