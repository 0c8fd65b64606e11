"""Static marks: positions and shapes for what is drawn with plain HTML and SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from writesae.page.sections.substitution import Outcome


@dataclass(frozen=True)
class Whisker:
    """A rate with its interval on a 0 to 1 axis."""

    label: str
    rate: float | None
    interval: tuple[float, float] | None
    outer: tuple[float, float] | None
    """The clustered interval, drawn behind."""


def whiskers(outcome: Outcome) -> list[Whisker]:
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


def strip_path(vector: Sequence[float]) -> str:
    """SVG path of one bar a component around a zero line, in a box `len(vector)` wide and 2 high."""
    top = max((abs(value) for value in vector), default=0.0) or 1.0
    return "".join(f"M{i}.1 1h.8v{-value / top:.3f}h-.8z" for i, value in enumerate(vector))
