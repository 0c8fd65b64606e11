"""The columns of a sweep's table: what training and each evaluation say of one dictionary, as plain numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from writesae.evals.common.result import Result
from writesae.show import words
from writesae.training import TrainResult

TRAINED: Mapping[str, str] = {
    "explained_variance": "explained variance, held out",
    "dead": "share of features that never fired there",
    "l0": "active features a token",
    "tokens": "held-out tokens",
    "seconds": "seconds of training",
}
COMPARED = ("explained_variance", "dead")
"""Of these, what a page compares."""


def of_training(result: TrainResult) -> dict[str, object]:
    """Of a finished run."""
    found = result.metrics
    numbers = (found.explained_variance, found.dead / (found.alive + found.dead), found.l0, found.tokens)
    return dict(zip(TRAINED, (*numbers, result.seconds), strict=True))


def of_result(result: Result[Any, Any]) -> dict[str, float]:
    """Of an evaluation: how many items were scored and, where it says so in a number, what was found. All of the rest
    is in its own folder."""
    read = READ.get(result.name)
    return {f"{result.name}: n": result.n} | ({} if read is None else read(result))


def _quality(result: Result[Any, Any]) -> dict[str, float]:
    found = result.summary
    dead = found.dead / (found.alive + found.dead)
    return {"quality: explained variance": found.explained_variance, "quality: dead": dead}


def _wins(result: Result[Any, Any]) -> dict[str, float]:
    """Of the first form of the native write, the first amplitude, and every reading and timing."""
    main = result.summary.main
    return {
        f"{result.name}: wins, by {cell.reading}, {words.timing(cell.timing)}": (
            cell.wins.value if result.name == "substitution" else cell.win_rate
        )
        for cell in main
        if cell.native_write == main[0].native_write
    }


READ: Mapping[str, Callable[[Result[Any, Any]], dict[str, float]]] = {
    "quality": _quality, "substitution": _wins, "population": _wins,
}  # fmt: skip
