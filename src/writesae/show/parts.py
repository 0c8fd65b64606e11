"""What a section of the page is made of: a sentence, figures, a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import plotly.graph_objects as go

from writesae.show import words


class Reading(NamedTuple):
    """What the page shows about a firing that is pointed at: plain text, set as text."""

    before: str
    token: str
    numbers: str


@dataclass(frozen=True)
class Plot:
    """One interactive figure in its frame."""

    name: str
    """Unique within its panel."""
    title: str
    figure: go.Figure
    """Colours are CSS variables (`palette`); its height is in the layout."""
    caption: str = ""
    width: Literal["third", "half", "whole"] = "half"
    readings: list[Reading] = field(default_factory=list)
    """By index; the figure's customdata are indices into it."""


@dataclass(frozen=True)
class Table:
    """Cells as they are to be read; the first column names the row."""

    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    brief: int = 0
    """Columns, from the first on, that stand beneath the finding on a terminal too."""

    def text(self) -> list[str]:
        """Those columns as lines."""
        rows = [[words.plain_spaces(cell) for cell in row[: self.brief]] for row in (self.head, *self.rows)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


@dataclass(frozen=True)
class Panel:
    """Everything that is shown of one result beside its finding."""

    plots: tuple[Plot, ...]
    table: Table
    note: str = ""
    """What a reader must know to read the table or the figures."""
    below: str = ""
    """HTML that stands under the table, made by `document.render`."""
