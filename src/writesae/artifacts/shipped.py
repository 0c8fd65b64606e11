"""Dictionaries that ship with the package: a collection, whose cells are called `HOST/state` and `HOST/write`."""

from __future__ import annotations

from pathlib import Path

from writesae.artifacts.manifest import MANIFEST
from writesae.errors import InputError

SHIPPED = Path(__file__).parent / "embedded"
"""The collection."""
NAMES = tuple(sorted(p.parent.relative_to(SHIPPED).as_posix() for p in SHIPPED.glob(f"*/*/{MANIFEST}")))
"""What they are called."""


def place_of(source: str | Path) -> Path:
    """Where a dictionary is: the path itself where something is there, else the shipped one of that name.

    Raises InputError for no text, and for the name of a shipped host, which has several.
    """
    path = Path(source)
    own = [name for name in NAMES if name.startswith(f"{path.as_posix()}/")]
    if own and not path.exists():
        raise InputError(f"{source} is a host with several dictionaries: give {' or '.join(own)}")
    if not str(source):
        raise InputError(f"no dictionary was named: give a folder, a Hub id user/name, or {' or '.join(NAMES)}")
    return path if path.exists() or path.as_posix() not in NAMES else SHIPPED / path
