"""Wins against the write's share of the state, where a folder has tests of several heads: where the published reading
fails."""

from __future__ import annotations

from statistics import median
from typing import Any, NamedTuple

from writesae.evals.common.result import Result
from writesae.page.find import Found
from writesae.show import words
from writesae.show.document import Chapter, render
from writesae.show.figures import canvas, label, level, log_ticks, marks
from writesae.show.parts import Plot
from writesae.types import Timing

COLOUR = {"state": "state", "increment": "atom", "write": "write"}
SYMBOL = {"state": "circle", "increment": "diamond", "write": "square"}
NAME = {"state": "states, read by state", "increment": "states, read by increment", "write": "writes"}
"""Of the readings: what the dictionary models, and how it is read."""


class Point(NamedTuple):
    """A test of one head in one reading."""

    head: str
    timing: Timing
    reading: str
    share: float
    wins: float
    interval: tuple[float, float]


def shares(found: Found) -> list[Chapter]:
    """The chapter, where single heads were tested and there are several of them."""
    points = _points(found)
    if len({point.head for point in points}) < 2:
        return []
    timings = list(dict.fromkeys(point.timing for point in points))
    plots = {f"shares-{timing}": _plot(timing, [p for p in points if p.timing == timing]) for timing in timings}
    body = render("figures", anchor="shares", title=TITLE, intro=INTRO, plots=plots, note=NOTE)
    return [Chapter("shares", "Share", body, plots)]


TITLE = "Wins against the write\u2019s share of the state"
INTRO = (
    "A dot is one head: how often the atom beats deletion (bar: 95 % interval), at its coefficient, against the median "
    "norm of the write over that of the state after its token; of facts, how often the answer loses less than with "
    "their writes deleted. Where the share is small the state is mostly what older tokens wrote, and its largest "
    "feature says little about this write."
)
NOTE = "The first form of the write is drawn; effects that are too small to decide are not."


def _points(found: Found) -> list[Point]:
    points = []
    for one in found.results:
        name, source = one.result.name, one.result.provenance
        if name == "recall":
            points += _of_facts(one.result)
        if name not in ("substitution", "population") or len(source.sites) != 1:
            continue
        main, head = one.result.summary.main, f"{source.host} {source.site}"
        for cell in main:
            if cell.native_write == main[0].native_write and cell.floor.verdict != "too small to decide":
                tokens = name == "substitution"
                value, interval = (cell.wins.value, cell.wins.interval) if tokens else (cell.win_rate, cell.interval)
                points.append(Point(head, cell.timing, cell.reading, cell.share, value, interval))
    return points


def _of_facts(result: Result[Any, Any]) -> list[Point]:
    """Atoms in the place of the writes that hold a fact, which are of one head or of several together."""
    head = f"{result.provenance.host} {', '.join(result.summary.cells)}"
    share = median(x for own in result.shares.values() for x in own.values())
    atoms = [c for c in result.summary.costs if (c.condition, c.amplitude) == ("atom", "coefficient") and c.wins]
    timing = result.config.timing
    return [Point(head, timing, c.reading, share, c.wins.value, c.wins.bounds) for c in atoms]


def _plot(timing: Timing, points: list[Point]) -> Plot:
    figure = canvas(400)
    for reading in dict.fromkeys(point.reading for point in points):
        own = [point for point in points if point.reading == reading]
        known = [point.interval if all(map(words.finite, point.interval)) else (point.wins,) * 2 for point in own]
        bars = {
            "type": "data", "symmetric": False, "width": 0, "thickness": 1.5, "color": f"var(--{COLOUR[reading]})",
            "array": [high - point.wins for point, (_, high) in zip(own, known, strict=True)],
            "arrayminus": [point.wins - low for point, (low, _) in zip(own, known, strict=True)],
        }  # fmt: skip
        heads = [label(point.head) for point in own]
        x, y = [point.share for point in own], [point.wins for point in own]
        says = "%{customdata}<br>share %{x:.3g}, wins %{y:.1%}"
        marks(figure, x, y, COLOUR[reading], 9, 1.0, says, name=NAME[reading], customdata=heads, error_y=bars)
        figure.data[-1].marker.symbol = SYMBOL[reading]
    level(figure, 0.5)
    every = [point.share for point in points]
    figure.update_xaxes(title="the write\u2019s share of the state", **log_ticks(min(every) / 1.5, max(every) * 1.5))
    figure.update_yaxes(title="firings closer than deletion", tickformat=".0%", range=[-0.02, 1.02])
    return Plot(f"shares-{timing}", f"{words.timing(timing).capitalize()}", figure)
