"""Finished pieces of a long evaluation, so that one that was stopped goes on where it was."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from writesae.config import to_json
from writesae.disk import claim, read_table, write_table
from writesae.evals.old.provenance import Provenance
from writesae.evals.old.result import plain

_WATCHER: ContextVar[Callable[[str], None] | None] = ContextVar("watcher", default=None)


@contextmanager
def watching(tell: Callable[[str], None]) -> Iterator[None]:
    """Call `tell` with the key of every piece that is there, as evaluations inside get to them."""
    token = _WATCHER.set(tell)
    try:
        yield
    finally:
        _WATCHER.reset(token)


@dataclass(frozen=True)
class Parts:
    """A folder of finished pieces, one Parquet file each; with no folder nothing is kept."""

    folder: Path | None = None

    @classmethod
    def open(cls, folder: Path | None, name: str, source: Provenance, config: object) -> Parts:
        """Continue in a folder, or begin in a new one; raises OutputError where it belongs to another evaluation."""
        if folder is None:
            return cls()
        asked = {"name": name, "provenance": plain(asdict(source)), "config": plain(to_json(config))}
        claim(folder, "evaluation", asked)
        return cls(folder)

    def get(self, key: str, make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
        """The piece called `key`: read if it is finished, else made and kept."""
        table = self._get(key, make)
        tell = _WATCHER.get()
        if tell is not None:
            tell(key)
        return table

    def _get(self, key: str, make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
        if self.folder is None:
            return make()
        path = self.folder / f"part-{key}-{hashlib.sha256(key.encode()).hexdigest()[:8]}.parquet"
        if path.exists():
            return read_table(path)
        table = make()
        write_table(path, table)
        return table
