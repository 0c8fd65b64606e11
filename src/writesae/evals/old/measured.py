"""One evaluation's result as the page reads it, whatever it came from: files, a quickstart, or Python."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np
import pandas as pd

from writesae.errors import DataError
from writesae.evals.old.structure import structure
from writesae.show.figures import Floats

T = TypeVar("T")


@dataclass(frozen=True)
class Source:
    """Where a result is from, as its `provenance` says."""

    host: str
    revision: str
    site: str
    sae: tuple[str, ...]
    """SHA-256 of each dictionary; empty where none was used."""
    tokens: str
    """SHA-256 of the text; empty where it was not recorded."""


@dataclass(frozen=True)
class Measured:
    """A finished evaluation."""

    name: str
    """The evaluation's."""
    place: str
    """How the page calls this result: its folder, or which dictionary."""
    file: str
    """What errors name: the result's summary."""
    source: Source
    provenance: Mapping[str, object]
    """All of it, as written."""
    config: Mapping[str, object]
    attempted: int
    n: int
    refused: Mapping[str, int]
    summary: object
    """The evaluation's own, not yet understood."""
    records: pd.DataFrame = field(default_factory=pd.DataFrame, repr=False)
    more: Mapping[str, pd.DataFrame] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        """Raises DataError where the counts do not add up."""
        if self.attempted != self.n + sum(self.refused.values()):
            raise DataError(
                f"{self.file} is damaged: {self.attempted} attempted, but {self.n} scored and "
                f"{sum(self.refused.values())} refused"
            )

    def filled(self, records: pd.DataFrame, more: Mapping[str, pd.DataFrame]) -> Measured:
        """With its tables; raises DataError where there is no record."""
        if records.empty:
            raise DataError(f"the records of {self.file} have no rows: there is nothing to report")
        return replace(self, records=records, more=more)

    def read(self, kind: type[T]) -> T:
        """The summary in its shape; raises DataError that names the file."""
        return structure(kind, self.summary, self.file)

    def setting(self, kind: type[T], key: str) -> T:
        """One setting of the protocol."""
        if key not in self.config:
            raise DataError(f"{self.file} does not say {key!r} under config; it says {', '.join(self.config)}")
        return structure(kind, self.config[key], f"{self.file}: config.{key}")

    def need(self, columns: Iterable[str], table: pd.DataFrame | None = None) -> None:
        """Raises DataError where the records lack a column."""
        have = self.records if table is None else table
        if missing := [name for name in columns if name not in have.columns]:
            raise DataError(
                f"the records of {self.file} have no column {', '.join(missing)}; "
                f"they have {', '.join(map(str, have.columns))}"
            )

    def table(self, name: str, columns: Iterable[str]) -> pd.DataFrame:
        """A further table; raises DataError where it is not there or lacks a column."""
        if name not in self.more:
            raise DataError(f"{self.file} has no {name}.parquet beside it")
        self.need(columns, self.more[name])
        return self.more[name]

    def floats(self, column: str, table: pd.DataFrame | None = None) -> Floats:
        """A column of the records (or of some of their rows) as numbers; raises DataError where it holds others."""
        rows = self.records if table is None else table
        try:
            return rows[column].to_numpy(dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise DataError(f"column {column} in the records of {self.file} does not hold numbers: {error}") from None

    def numeric(self, columns: Iterable[str]) -> pd.DataFrame:
        """The records with these columns as numbers; raises DataError where one is missing or holds others."""
        names = list(columns)
        self.need(names)
        return self.records.assign(**{name: self.floats(name) for name in names})
