"""Where results come from: every result folder under one folder, and what looks like one but cannot be read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from writesae.disk import read_json
from writesae.errors import DataError, InputError
from writesae.evals import EVALUATIONS
from writesae.evals.common.result import SUMMARY, Result


@dataclass(frozen=True)
class Placed:
    """A result and where it lies."""

    place: str
    """Its folder below the one that was searched."""
    result: Result[Any, Any]


@dataclass(frozen=True)
class Unreadable:
    """A summary that is not shown, and why."""

    place: str
    reason: str


@dataclass(frozen=True)
class Found:
    """What a folder holds."""

    results: list[Placed]
    """In the order of the page, then by place."""
    unreadable: list[Unreadable]


def find(folder: Path) -> Found:
    """Read every result under a folder. Raises InputError where there is none that can be read."""
    if not folder.is_dir():
        raise InputError(f"cannot report on {folder}: no such folder; give one that holds results")
    results, unreadable = [], []
    for path in summaries(folder):
        place = str(path.parent.relative_to(folder))
        place = path.parent.resolve().name if place == "." else place
        try:
            results.append(Placed(place, Result.load(path.parent)))
        except DataError as error:
            unreadable.append(Unreadable(place, str(error)))
    if not results:
        why = f"; {unreadable[0].reason}" if unreadable else f": it has no {SUMMARY}, nor has any folder in it"
        raise InputError(f"cannot report on {folder}{why}; `writesae eval NAME --out {folder}/NAME` writes a result")
    order = list(EVALUATIONS)
    return Found(sorted(results, key=lambda one: (order.index(one.result.name), one.place)), unreadable)


def recompute(folder: Path) -> list[Path]:
    """Compute every summary under a folder anew from its records, whatever it said, and save the results in this
    version's form; the folders. Raises DataError for one that has no such records."""
    places = [path.parent for path in summaries(folder)]
    for place in places:
        Result.load(place, anew=True).save(place)
    return places


def summaries(folder: Path) -> Iterator[Path]:
    """Every summary under a folder, sorted; stores are not searched."""
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.endswith(".zarr"))
        if SUMMARY in files:
            yield Path(place) / SUMMARY


def one_result(folder: Path) -> Result[Any, Any]:
    """The one result in a folder; raises InputError where there is another number of them."""
    if (folder / SUMMARY).exists():
        return Result.load(folder)
    found = find(folder).results
    if len(found) != 1:
        places = ", ".join(f"{one.result.name} in {one.place}" for one in found)
        raise InputError(f"{folder} holds {len(found)} results ({places}): give the folder of one")
    return found[0].result


def is_kind(path: Path, kind: str) -> bool:
    """Whether a JSON file says that it is of this kind."""
    if not path.is_file():
        return False
    data = read_json(path)
    return isinstance(data, dict) and data.get("kind") == kind
