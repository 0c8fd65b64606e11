"""Dictionaries that ship with the package: a collection, whose cells are called `HOST/state` and `HOST/write`."""

from __future__ import annotations

from pathlib import Path

from writesae.artifacts.manifest import MANIFEST

SHIPPED = Path(__file__).parent / "embedded"
"""The collection."""
NAMES = tuple(sorted(p.parent.relative_to(SHIPPED).as_posix() for p in SHIPPED.glob(f"*/*/{MANIFEST}")))
"""What they are called."""


def place_of(source: str | Path) -> Path:
    """Where a dictionary is: the path itself where something is there, else the shipped one of that name."""
    path = Path(source)
    return path if path.exists() or path.as_posix() not in NAMES else SHIPPED / path
