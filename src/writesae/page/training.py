"""How the dictionaries under a folder were learnt: curves of explained variance and of features that are alive."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import plotly.graph_objects as go

from writesae.config import Json, from_plain
from writesae.disk import read_lines
from writesae.errors import ConfigError, DataError
from writesae.show import words
from writesae.show.document import Chapter, render
from writesae.show.figures import canvas, curve, label, marks
from writesae.show.parts import Plot

HISTORY = "history.jsonl"
LOWEST = -1.0
"""Where the axis of explained variance ends: an untrained dictionary can lie far below."""
MOST = 8
"""Runs that are drawn."""
COLOURS = ("state", "write", "atom", "violet", "gold", "delete", "heat", "random")


@dataclass(frozen=True)
class Row:
    """One record of a run's history, as far as it is drawn."""

    step: int
    tokens: int
    explained_variance: float
    """On the training batch."""
    alive: float
    held_out: float = float("nan")
    """Explained variance on held-out sequences, where this step measured it."""


@dataclass(frozen=True)
class Run:
    """A training run."""

    place: str
    rows: Sequence[Row]


def training(folder: Path) -> list[Chapter]:
    """A chapter on every run that lies under a folder; none where there is none."""
    files = sorted(path for path in folder.rglob(HISTORY) if ".zarr" not in str(path.relative_to(folder)))
    runs = [Run(str(path.parent.relative_to(folder)), read_history(path)) for path in files[:MOST]]
    runs = [run for run in runs if run.rows]
    if not runs:
        return []
    values = [value for run in runs for row in run.rows for value in (row.explained_variance, row.held_out)]
    cut = any(value < LOWEST for value in values)
    plots = {
        "training-explained": Plot("explained", "Variance explained", explained(runs)),
        "training-alive": Plot("alive", "Features that are alive", alive(runs)),
    }
    ends = [(run.place, run.rows[-1], _last([row.held_out for row in run.rows])) for run in runs]
    more = len(files) - MOST
    body = render("training", Path(__file__).parent / "templates", plots=plots, ends=ends, cut=cut, more=max(0, more))
    return [Chapter("training", "Training", body, plots)]


def read_history(path: Path) -> list[Row]:
    """The records of a history that can be read; its last line may be cut."""
    rows = []
    with suppress(DataError, ConfigError):
        for line, _ in read_lines(path, cut=True):
            rows.append(from_plain(Row, _drawn(line)))
    return rows


def _drawn(line: Json) -> Json:
    return {name: line[name] for name in Row.__annotations__ if name in line} if isinstance(line, dict) else line


def _last(values: Sequence[float]) -> float | None:
    known = [value for value in values if words.finite(value)]
    return known[-1] if known else None


def explained(runs: Sequence[Run]) -> go.Figure:
    """Explained variance against training tokens: a line a run for training batches, dots for held-out text."""
    figure = canvas()
    for run, colour in zip(runs, COLOURS, strict=False):
        held = [row for row in run.rows if words.finite(row.held_out)]
        _curve(figure, run, colour, "explained_variance")
        name = label(f"{run.place}, held out")
        x, y = [row.tokens for row in held], [row.held_out for row in held]
        marks(figure, x, y, colour, 6, 1, f"{name}: %{{y}}", name=name, showlegend=False)
    values = [y for trace in figure.data for y in trace.y if y is not None]
    bottom = max(LOWEST, min(values, default=0.0) - 0.03)
    figure.update_yaxes(title="explained variance", range=[bottom, max(values, default=1.0) + 0.05])
    return _against_tokens(figure)


def alive(runs: Sequence[Run]) -> go.Figure:
    """Alive features against training tokens, a line a run."""
    figure = canvas()
    for run, colour in zip(runs, COLOURS, strict=False):
        _curve(figure, run, colour, "alive")
    figure.update_yaxes(title="alive features", rangemode="tozero", separatethousands=True)
    return _against_tokens(figure)


def _curve(figure: go.Figure, run: Run, colour: str, column: str) -> None:
    name, y = label(run.place), [getattr(row, column) for row in run.rows]
    curve(figure, [row.tokens for row in run.rows], y, colour, 2.25, f"{name}: %{{y}}", name=name, connectgaps=True)


def _against_tokens(figure: go.Figure) -> go.Figure:
    figure.update_xaxes(title="training tokens", exponentformat="none", separatethousands=True)
    figure.update_layout(hovermode="x")
    return figure
