"""What an evaluation measures, piece by piece, and pieces that are kept so that one that was stopped goes on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from writesae.disk import read_table, write_table
from writesae.evals.common.evaluation import Progress

PASSAGES = 16
"""Passages of one piece: a fixed number, so that a run that was stopped goes on on any machine."""


class Measured(NamedTuple):
    """What `measure` returns."""

    records: pd.DataFrame
    """One row an item, or several."""
    attempted: int
    """Items that were looked at: `attempted = scored + refused`."""
    refused: Mapping[str, int] = {}
    """Reason -> how many items were not scored for it."""
    more: Mapping[str, pd.DataFrame] = {}
    """Further tables that the summary needs."""
    shares: Mapping[str, Mapping[str, float]] = {}
    """`Result.shares`, where it knows of which writes they are to be."""


@dataclass
class Keep:
    """Makes the pieces of one evaluation, keeps them in a folder where there is one, and counts them."""

    folder: Path | None = None
    progress: Progress | None = None
    total: int = 0
    """Pieces that are known to come."""
    done: int = field(default=0, init=False)

    def plan(self, pieces: int) -> None:
        """Say that so many more pieces come."""
        self.total += pieces

    def __call__(self, key: str, make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
        """The piece called `key`: read if it is finished, else made and kept."""
        table = self._get(key, make)
        self.done += 1
        if self.progress is not None:
            self.progress(self.done, max(self.total, self.done))
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

    def by_passages(
        self, count: int, make: Callable[[int, int], pd.DataFrame], size: int = PASSAGES, name: str = "passages"
    ) -> pd.DataFrame:
        """`make(begin, end)` over all passages, in pieces of `size`; the tables one after the other."""
        groups = list(passage_groups(count, size))
        self.plan(len(groups))
        tables = [self(f"{name}-{a}", lambda a=a, b=b: make(a, b)) for a, b in groups]  # type: ignore[misc]
        return concatenated(tables)


def passage_groups(count: int, size: int = PASSAGES) -> Iterator[tuple[int, int]]:
    """(begin, end) of the pieces of `count` passages."""
    return ((begin, min(begin + size, count)) for begin in range(0, count, size))


def concatenated(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """Tables one after the other; empty ones do not decide what a column holds."""
    return pd.concat([table for table in tables if len(table)] or tables[:1], ignore_index=True)
