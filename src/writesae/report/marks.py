"""Static marks: positions and shapes for what is drawn with plain HTML and SVG."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from writesae.report.records import HeadRow, Outcome


@dataclass(frozen=True)
class Whisker:
    """A rate with its interval on a 0 to 1 axis."""

    label: str
    rate: float | None
    interval: tuple[float, float] | None
    outer: tuple[float, float] | None
    """The clustered interval, drawn behind."""


def whiskers(protocol: str, outcome: Outcome) -> list[Whisker]:
    """The win rates of one protocol: the atom at its coefficient and at the write's norm, and the strict chain."""
    return [
        Whisker("at its coefficient", outcome.win_rate, outcome.interval, outcome.interval_clustered),
        Whisker("at the write\u2019s norm", outcome.win_rate_norm, outcome.interval_norm, None),
        Whisker("atom < delete < random", outcome.strict_chain, None, None),
    ]


@dataclass(frozen=True)
class LogAxis:
    """Whole decades that hold every value."""

    low: int
    high: int

    def position(self, value: float) -> float:
        """Where a value lies between the axis's ends, 0 to 1."""
        place = (math.log10(value) - self.low) / (self.high - self.low) if value > 0 else 0.0
        return min(1.0, max(0.0, place))

    def ticks(self) -> list[float]:
        """The decades, thinned to at most six."""
        step = max(1, math.ceil((self.high - self.low) / 5))
        return [10.0**power for power in range(self.low, self.high + 1, step)]


def log_axis(values: Sequence[float | None]) -> LogAxis:
    """The smallest whole-decade axis around the positive values."""
    logs = [math.log10(value) for value in values if value is not None and value > 0]
    if not logs:
        return LogAxis(-1, 1)
    low, high = math.floor(min(logs)), math.ceil(max(logs))
    return LogAxis(low, max(high, low + 1))


@dataclass(frozen=True)
class Cell:
    """One head in a heat map."""

    value: float | None
    shade: float
    """0 (lowest) to 1 (highest)."""
    chosen: bool


@dataclass(frozen=True)
class HeatMap:
    """Layer x head table of one measured quantity."""

    heads: list[int]
    rows: list[tuple[int, list[Cell | None]]]
    """(layer, one cell a head; None where the layer has no such head)."""
    low: float | None
    high: float | None
    floor: float | None
    """Shading is logarithmic from here up; linear where this is None."""


def heat_map(heads: Sequence[HeadRow], read: Callable[[HeadRow], float | None], floor: float | None = None) -> HeatMap:
    """Shade every head by `read(head)`: linearly, or where a positive `floor` is given by its logarithm above that."""
    values = [value for row in heads if (value := read(row)) is not None]

    def scale(value: float) -> float:
        return value if floor is None else math.log(max(value, floor))

    low, high = (scale(min(values)), scale(max(values))) if values else (0.0, 1.0)

    def cell(row: HeadRow) -> Cell:
        value = read(row)
        if value is None:
            return Cell(None, 0.0, row.chosen)
        return Cell(value, (scale(value) - low) / (high - low) if high > low else 0.5, row.chosen)

    places = {(row.layer, row.head): cell(row) for row in heads}
    columns = sorted({row.head for row in heads})
    layers = sorted({row.layer for row in heads})
    return HeatMap(
        columns,
        [(layer, [places.get((layer, head)) for head in columns]) for layer in layers],
        min(values, default=None),
        max(values, default=None),
        floor,
    )


def strip_path(vector: Sequence[float]) -> str:
    """SVG path of one bar a component around a zero line, in a box `len(vector)` wide and 2 high."""
    top = max((abs(value) for value in vector), default=0.0) or 1.0
    return "".join(f"M{i}.1 1h.8v{-value / top:.3f}h-.8z" for i, value in enumerate(vector))
