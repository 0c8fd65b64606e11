"""The form of every result: what was asked, on what, how many were refused and why, a summary, and its records.

The summary is a function of the records alone, so anybody can recompute it from the Parquet files.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import numpy as np
import pandas as pd

from writesae.config import Json, from_json, to_json
from writesae.disk import LARGE, check_place, make_folder, read_json, read_table, write_json, write_table
from writesae.errors import DataError, OutputError
from writesae.evals.old.configs import config_class
from writesae.evals.old.provenance import Provenance

if TYPE_CHECKING:
    import plotly.graph_objects as go

SUMMARY = "summary.json"

C = TypeVar("C")
S = TypeVar("S")


class Plots(Protocol):
    """What the report says about a result; a notebook shows it as the report does."""

    @property
    def finding(self) -> str:
        """The sentence above the figures."""

    @property
    def figures(self) -> Mapping[str, go.Figure]:
        """Name -> Plotly figure."""


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
        make_folder(folder)
        (folder / SUMMARY).unlink(missing_ok=True)  # its presence means that all tables are those it speaks of
        for name, table in {"records": self.records, **self.more}.items():
            write_table(folder / f"{name}.parquet", table)
        write_json(folder / SUMMARY, self.to_json())


@dataclass(frozen=True)
class Stored:
    """A result folder read back: all that its summary is computed from."""

    name: str
    config: object
    refused: dict[str, int]
    tables: Mapping[str, pd.DataFrame] = field(repr=False)
    """`records` and the further tables, by name."""

    @property
    def records(self) -> pd.DataFrame:
        """One row an item."""
        return self.tables["records"]


def read_result(folder: Path) -> Stored:
    """Read a result folder; raises ConfigError or DataError where it is not a whole one."""
    about = read_json(folder / SUMMARY, LARGE)
    if not isinstance(about, dict) or not {"name", "config", "refused"} <= set(about):
        raise DataError(f"{folder / SUMMARY} is not the summary of an evaluation")
    name = str(about["name"])
    config: object = from_json(config_class(name), about["config"])
    tables = {path.stem: read_table(path) for path in sorted(folder.glob("*.parquet"))}
    if "records" not in tables:
        raise DataError(f"{folder} has no records.parquet")
    return Stored(name, config, from_json(dict[str, int], about["refused"]), tables)


def check_folder(folder: Path, name: str) -> None:
    """Raises OutputError where a result called `name` cannot go into a folder, because something else is there."""
    check_place(folder)
    if (folder / SUMMARY).exists():
        about = read_json(folder / SUMMARY, LARGE)
        found = about.get("name") if isinstance(about, dict) else None
        if found != name:
            raise OutputError(f"{folder} holds the result of {found or 'something else'}: give a new folder for {name}")


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
