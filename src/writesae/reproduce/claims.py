"""What was published, as data: one entry a claim of `published.toml`, and its numbers in words."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from writesae.config import Json
from writesae.errors import InputError

PUBLISHED = Path(__file__).with_name("published.toml")
ABOUT = ("id", "text", "host", "n", "where", "unmet")
"""Fields of a claim that are no figures."""


@dataclass(frozen=True)
class Claim:
    """One published claim (Young 2026, arXiv:2605.12770)."""

    id: str
    text: str
    """What was claimed."""
    where: str
    """Section, table or figure."""
    host: str
    """On what it was measured; empty where the rows say it."""
    n: int | None
    unmet: bool
    """Whether the paper itself reports that its method fails here."""
    numbers: dict[str, Json]
    """Every figure, by name."""

    def number(self, path: str) -> float:
        """One of the figures, like `value` or `rows.0.win`."""
        found: Json = self.numbers
        for step in path.split("."):
            found = found[int(step)] if isinstance(found, list) else found[step]  # type: ignore[index]
        assert isinstance(found, int | float)
        return float(found)

    @property
    def figures(self) -> str:
        """All of them in words."""
        said = []
        for name, value in self.numbers.items():
            if name == "derived":
                continue
            if name == "rows" and isinstance(value, list):
                said.append("; ".join(", ".join(f"{k} {v}" for k, v in row.items()) for row in value))  # type: ignore[union-attr]
            elif isinstance(value, dict):
                said.append(f"{name}: " + ", ".join(f"{k} {v}" for k, v in value.items()))
            else:
                said.append(f"{value}" if name == "value" else f"{name} {value}")
        return "; ".join(said)


@cache
def claims() -> tuple[Claim, ...]:
    """All of them, in the paper's order of topics."""
    found = tomllib.loads(PUBLISHED.read_text("utf-8"))["claim"]
    return tuple(
        Claim(
            one["id"], one["text"], one.get("where", ""), one.get("host", ""), one.get("n"), one.get("unmet", False),
            {name: value for name, value in one.items() if name not in ABOUT},
        )
        for one in found
    )  # fmt: skip


def claim(name: str) -> Claim:
    """The claim of that id; raises InputError naming those there are."""
    for one in claims():
        if one.id == name:
            return one
    raise InputError(f"no published claim is called {name!r}: choose of {', '.join(one.id for one in claims())}")
