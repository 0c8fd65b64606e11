"""The largest contributions of an attribution, with their text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field

import pandas as pd

from writesae.config import Json
from writesae.show.sheet import Listing, Sheet, Span, shows_itself
from writesae.show.words import visible
from writesae.types import Site

AROUND = 4
"""Tokens of context shown before a write's own."""


@dataclass(frozen=True)
class Contribution:
    """One entry of a ranking."""

    site: Site
    position: int
    text: str
    """The token's text, or its id where the model has no tokenizer."""
    effect: float
    feature: int | None = None
    coefficient: float | None = None


@shows_itself
@dataclass(frozen=True)
class Ranking:
    """Contributions, the largest first."""

    title: str
    entries: tuple[Contribution, ...]
    texts: tuple[str, ...] = field(repr=False)
    """Every token's text."""

    def __iter__(self) -> Iterator[Contribution]:
        return iter(self.entries)

    def __getitem__(self, index: int) -> Contribution:
        return self.entries[index]

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def records(self) -> pd.DataFrame:
        """One row a contribution."""
        return pd.DataFrame(self.to_json())

    def to_json(self) -> list[dict[str, Json]]:
        """The same as JSON."""
        return [{**asdict(c), "site": str(c.site)} for c in self.entries]

    def listing(self) -> Listing:
        """The entries with their text."""
        atoms = any(entry.feature is not None for entry in self.entries)
        rows = []
        for c in self.entries:
            before = visible("".join(self.texts[max(0, c.position - AROUND) : c.position]))
            text = (Span(before, "soft"), Span(visible(c.text), "strong"))
            atom = (str(c.feature), f"{c.coefficient:.4g}") if atoms else ()
            rows.append((str(c.site), *atom, str(c.position), text, f"{c.effect:+.4f}"))
        head = ("site", *(("atom", "coefficient") if atoms else ()), "position", "text", "effect")
        return Listing(head, rows, self.title)

    def sheet(self) -> Sheet:
        """A table."""
        return Sheet((self.listing(),))
