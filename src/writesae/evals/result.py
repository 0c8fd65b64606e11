"""The form of every result: what was asked, on what, how many were refused and why, a summary, and its records.

The summary is a function of the records alone, so anybody can recompute it from the Parquet files.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import pandas as pd

from writesae.config import Json, to_json
from writesae.evals.provenance import Provenance

C = TypeVar("C")
S = TypeVar("S")


@dataclass(frozen=True)
class Result(Generic[C, S]):
    """One finished evaluation with configuration `C` and summary `S`."""

    name: str
    provenance: Provenance
    config: C
    attempted: int
    """Items that were looked at (firings, features or cells): `attempted = n + sum(refused)`."""
    refused: dict[str, int]
    """Reason -> how many items were not scored for it."""
    summary: S
    records: pd.DataFrame = field(repr=False)
    """One row an item."""
    more: Mapping[str, pd.DataFrame] = field(default_factory=dict, repr=False)
    """Further tables that the summary needs."""

    @property
    def n(self) -> int:
        """Items that were scored."""
        return self.attempted - sum(self.refused.values())

    def to_json(self) -> Json:
        """Everything but the records."""
        return {
            "name": self.name,
            "provenance": plain(asdict(self.provenance)),
            "config": plain(to_json(self.config)),
            "attempted": self.attempted,
            "n": self.n,
            "refused": plain(self.refused),
            "summary": plain(self.summary),
        }

    def write(self, folder: Path) -> None:
        """Write `records.parquet` (and `NAME.parquet` of further tables), then `summary.json`, each at once."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, table in {"records": self.records, **self.more}.items():
            write_table(folder / f"{name}.parquet", table)
        write_text(folder / "summary.json", json.dumps(self.to_json(), indent=2, allow_nan=False) + "\n")


def plain(x: object) -> Json:
    """JSON of nested dataclasses, dicts, lists, tuples and numbers; NaN and infinities become null."""
    if is_dataclass(x) and not isinstance(x, type):
        return plain(asdict(x))
    if isinstance(x, Mapping):
        return {str(key): plain(value) for key, value in x.items()}
    if isinstance(x, list | tuple):
        return [plain(value) for value in x]
    if isinstance(x, np.generic):
        return plain(x.item())
    if isinstance(x, float):
        return x if math.isfinite(x) else None
    if x is None or isinstance(x, bool | int | str):
        return x
    return str(x)


def count(reasons: pd.Series[str] | list[str]) -> dict[str, int]:
    """Reason -> how often, without the empty reason."""
    return {reason: n for reason, n in Counter(reasons).items() if reason}


def write_text(path: Path, text: str) -> None:
    """Write a file so that it is there whole or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a Parquet file so that it is there whole or not at all."""
    part = path.with_name(path.name + ".part")
    table.to_parquet(part, index=False)
    os.replace(part, path)
