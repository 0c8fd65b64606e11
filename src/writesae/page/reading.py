"""Where results come from: evaluation folders, and the results of a quickstart, under one folder."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from writesae.errors import DataError, InputError
from writesae.page.measured import Measured, Source
from writesae.page.quickstart import Run, load_run
from writesae.page.sections import SECTIONS
from writesae.page.structure import read_json, read_table, structure

SUMMARY = "summary.json"


@dataclass(frozen=True)
class Header:
    """What every evaluation's summary.json says, beside its own summary."""

    name: str
    provenance: dict[str, object]
    config: dict[str, object]
    attempted: int
    n: int
    refused: dict[str, int]
    summary: object


@dataclass(frozen=True)
class Found:
    """What a folder holds."""

    folder: Path
    run: Run | None
    """The quickstart run that the folder is, if it is one."""
    results: list[Measured]
    """In the order of the page; the run's own first."""


def find(folder: Path) -> Found:
    """Read every result under a folder.

    Raises InputError where there is none, DataError for a result that is damaged or of an unknown evaluation; both
    name the file.
    """
    if not folder.is_dir():
        raise InputError(f"cannot report on {folder}: no such folder; give one that holds results")
    run, results = None, []
    for path in summaries(folder):
        data = read_json(path)
        if isinstance(data, dict) and "name" in data:
            results.append(read_result(path, data, folder))
        elif isinstance(data, dict) and "substitution" in data and path.parent == folder:
            run = load_run(folder, data)
        elif isinstance(data, dict) and "substitution" in data:
            raise InputError(f"{path} is a quickstart inside {folder}: report on {path.parent} by itself")
        else:
            raise DataError(f"{path} is neither the summary of an evaluation nor of a quickstart")
    if run is not None:
        results = [*run.results, *results]
    if not results:
        raise InputError(
            f"cannot report on {folder}: it has no {SUMMARY}, nor has any folder in it; `writesae eval NAME --out "
            f"{folder}` writes one, and "
            "a quickstart that was stopped writes its own when the same command is given again"
        )
    order = list(SECTIONS)
    return Found(folder, run, sorted(results, key=lambda result: order.index(result.name)))


def summaries(folder: Path) -> Iterator[Path]:
    """Every summary under a folder, sorted; stores are not searched."""
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.endswith(".zarr"))
        if SUMMARY in files:
            yield Path(place) / SUMMARY


def read_result(path: Path, data: Mapping[str, object], root: Path) -> Measured:
    """One evaluation's folder."""
    tables = {file.stem: file for file in sorted(path.parent.glob("*.parquet"))}
    if "records" not in tables:
        raise DataError(f"{path} has no records.parquet beside it")
    inside = path.parent.relative_to(root)
    place = str(inside) if inside.parts else path.parent.resolve().name
    more = {name: read_table(file) for name, file in tables.items() if name != "records"}
    return measured(data, place, str(path)).filled(read_table(tables["records"]), more)


def measured(data: Mapping[str, object], place: str, file: str) -> Measured:
    """The JSON of a result, still without its tables. Raises DataError that names `file`."""
    header = structure(Header, dict(data), file)
    if header.name not in SECTIONS:
        raise DataError(
            f"{file} is the result of an unknown evaluation {header.name!r}: known are {', '.join(SECTIONS)}"
        )
    source = structure(Source, header.provenance, f"{file}: provenance")
    return Measured(
        header.name,
        place,
        file,
        source,
        header.provenance,
        header.config,
        header.attempted,
        header.n,
        header.refused,
        header.summary,
    )
