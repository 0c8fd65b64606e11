"""Cells of a grid: records that were measured alike, what is said of each group of them, and the table of all.

A cell is a frozen dataclass. Its first fields are columns of the records, by which these are grouped; the others are
statistics of the group. A field that is shown names its column: `Annotated[float, Column("dose", words.times)]`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Generic, NamedTuple, TypeVar, get_type_hints

import numpy as np

from writesae.evals.common.conditions import CELL, Size
from writesae.show import words
from writesae.show.parts import Table
from writesae.types import DirectionKind, KLDirection, NativeWrite, ReadAs, Timing

if TYPE_CHECKING:
    import pandas as pd

C = TypeVar("C")


class Column(NamedTuple):
    """A column of the table, and how a field is written in it."""

    head: str
    write: Callable[[Any], str] = str


def shared(head: str) -> tuple[Column, Column]:
    """The columns of a share and its interval."""
    bounds = Column("95 % interval", lambda share: words.interval(share.bounds))
    return Column(head, lambda share: words.percent(share.value)), bounds


AtTiming = Annotated[Timing, Column("timing", words.timing)]
OfWrite = Annotated[NativeWrite, Column("native write")]
Along = Annotated[DirectionKind, Column("direction")]
"""Columns of most grids."""


def cells(
    records: pd.DataFrame, by: Sequence[str] = CELL, sort: bool = False
) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """The values of these columns, and the records that have them, in the order of the first records or sorted."""
    for key, part in records.groupby(list(by), sort=sort):
        values = (one.item() if isinstance(one, np.generic) else one for one in key)
        yield dict(zip(by, values, strict=True)), part


def inside(records: pd.DataFrame, cell: object, by: Sequence[str] = CELL) -> pd.DataFrame:
    """The records of a cell."""
    return records[np.logical_and.reduce([records[name] == getattr(cell, name) for name in by])]


@dataclass(frozen=True)
class Cells(Generic[C]):
    """The summary of a grid: its cells, in the order in which they were asked for."""

    cells: tuple[C, ...]

    def where(self, **how: object) -> list[C]:
        """Those with these: `where(timing="at_token", native_write="value")`."""
        return [cell for cell in self.cells if all(getattr(cell, name) == value for name, value in how.items())]

    def cell(self, **how: object) -> C:
        """The first of them."""
        return self.where(**how)[0]

    @property
    def main(self) -> list[C]:
        """Of firings that were scored: the cells at the first amplitude and direction."""
        first = self.cells[0]
        return self.where(**{name: getattr(first, name) for name in ("amplitude", "direction")})

    def alike(self, *names: str) -> list[list[C]]:
        """The cells in groups that have these fields in common."""
        groups = dict[tuple[object, ...], list[C]]()
        for cell in self.cells:
            groups.setdefault(tuple(getattr(cell, name) for name in names), []).append(cell)
        return list(groups.values())


@dataclass(frozen=True)
class ScoredCell:
    """One way in which firings were scored (`conditions.Grid`)."""

    timing: Timing
    native_write: NativeWrite
    reading: ReadAs
    amplitude: Size
    direction: KLDirection

    @property
    def named(self) -> str:
        """Timing, form of the write and reading in words."""
        how = {"state": ", read by state", "increment": ", read by increment", "write": ""}[self.reading]
        return f"{words.timing(self.timing)}, {words.write(self.native_write)}{how}"


def table_of(kind: type[C], cells: Iterable[C]) -> Table:
    """The fields that name columns, a row a cell."""
    columns = list[tuple[str, Column]]()
    module = vars(sys.modules[kind.__module__])  # said, because what a lambda in an annotation names is looked up there
    for name, hint in get_type_hints(kind, module, include_extras=True).items():
        for one in getattr(hint, "__metadata__", ()):
            columns += [(name, one)] if isinstance(one, Column) else [(name, column) for column in one]
    rows = [tuple(column.write(getattr(cell, name)) for name, column in columns) for cell in cells]
    return Table(tuple(column.head for _, column in columns), rows)
