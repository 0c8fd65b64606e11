"""Reading a run folder: files in, frozen records out, one clear error where a file is missing or damaged."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

import cattrs
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from cattrs.errors import BaseValidationError

from writesae.errors import DataError, InputError
from writesae.report.records import (
    CONDITIONS,
    Atom,
    Firings,
    HeadRow,
    HistoryRow,
    HostRecord,
    Interval,
    Run,
    Summary,
    TargetRun,
)

T = TypeVar("T")

_converter = cattrs.Converter()


def _number(value: object, _: type) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value!r} is not a number")
    return float(value)


def _host(value: object, _: type) -> HostRecord:
    if isinstance(value, str):
        return HostRecord(value)
    if isinstance(value, dict) and isinstance(value.get("name"), str):
        return HostRecord(value["name"], str(value.get("revision") or HostRecord.revision))
    raise TypeError(f"{value!r} is neither a host's name nor an object with a name")


def _interval(value: object, _: object) -> Interval | None:
    """A pair of bounds; none where a bound could not be computed."""
    if value is None:
        return None
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise TypeError(f"{value!r} is not a pair of bounds")
    if value[0] is None or value[1] is None:
        return None
    return _number(value[0], float), _number(value[1], float)


_converter.register_structure_hook(float, _number)
_converter.register_structure_hook(Interval | None, _interval)
_converter.register_structure_hook(HostRecord, _host)
_converter.register_structure_hook_func(lambda kind: kind is object, lambda value, _: value)


def load_run(folder: Path) -> Run:
    """Read every result file of a finished run.

    Raises InputError for a folder that is no run or lacks a file, DataError for a file that cannot be understood.
    """
    if not folder.is_dir():
        raise InputError(f"cannot report on {folder}: no such folder; give the folder of a quickstart run")
    summary = _structure(Summary, _json(folder, "summary.json"), "summary.json")
    if not summary.substitution:
        raise DataError("summary.json names no target under 'substitution': there is nothing to report")
    return Run(summary, _heads(folder), [_target(folder, summary, name) for name in summary.substitution])


def _target(folder: Path, summary: Summary, name: str) -> TargetRun:
    atoms = f"atoms/{name}.json"
    return TargetRun(
        name,
        summary.substitution[name],
        _history(folder, f"train/{name}/history.jsonl"),
        _firings(folder, f"substitution/{name}.parquet"),
        _structure(list[Atom], _json(folder, atoms), atoms),
    )


def _find(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.is_file():
        raise InputError(
            f"cannot report on {folder}: it has no {name}; "
            f"a finished run has it, so finish this one with `writesae quickstart --out {folder}`"
        )
    return path


def _structure(kind: type[T], data: object, name: str) -> T:
    try:
        return _converter.structure(data, kind)
    except (BaseValidationError, TypeError, ValueError, KeyError) as error:
        reasons = "; ".join(cattrs.transform_error(error, path=name))
        raise DataError(f"cannot understand {name}: {reasons}") from None


def _json(folder: Path, name: str) -> object:
    try:
        text = _find(folder, name).read_text(encoding="utf-8")
        return json.loads(text, parse_constant=lambda _: None)  # NaN: not measured
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"cannot read {folder / name} as JSON: {error}") from None


def _history(folder: Path, name: str) -> list[HistoryRow]:
    lines = _find(folder, name).read_text(encoding="utf-8", errors="replace").splitlines()
    try:
        records = [json.loads(line, parse_constant=lambda _: None) for line in lines if line.strip()]
    except ValueError as error:
        raise DataError(f"cannot read {folder / name} as JSON lines: {error}") from None
    return _structure(list[HistoryRow], records, name)


def _table(folder: Path, name: str, columns: Iterable[str], optional: Iterable[str] = ()) -> pa.Table:
    path, wanted = _find(folder, name), list(columns)
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"cannot read {path} as Parquet: {error}") from None
    missing = [column for column in wanted if column not in table.column_names]
    if missing:
        raise DataError(f"{path} has no column {', '.join(missing)}; it has {', '.join(table.column_names)}")
    return table.select([*wanted, *(column for column in optional if column in table.column_names)])


def _heads(folder: Path) -> list[HeadRow]:
    name = "spectrum.parquet"
    rows = _table(folder, name, HeadRow.__dataclass_fields__).to_pylist()
    finite = [{key: None if _is_nan(value) else value for key, value in row.items()} for row in rows]
    return _structure(list[HeadRow], finite, name)


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _firings(folder: Path, name: str) -> dict[str, Firings]:
    kls = {condition: f"kl_{condition}" for condition in CONDITIONS}
    others = ("protocol", "feature", "coefficient", "cosine", "context")
    table = _table(folder, name, [*kls.values(), *others], optional=("token_text",))

    def floats(rows: pa.Table, column: str) -> np.ndarray:
        return np.asarray(rows[column].to_numpy(), dtype=np.float64)

    found = {}
    for protocol in pc.unique(table["protocol"]).to_pylist():
        rows = table.filter(pc.equal(table["protocol"], protocol))
        found[str(protocol)] = Firings(
            {condition: floats(rows, column) for condition, column in kls.items()},
            np.asarray(rows["feature"].to_numpy(), dtype=np.int64),
            floats(rows, "coefficient"),
            floats(rows, "cosine"),
            _texts(rows, "token_text") if "token_text" in table.column_names else [""] * len(rows),
            _texts(rows, "context"),
        )
    return found


def _texts(rows: pa.Table, column: str) -> list[str]:
    return [str(text) for text in rows[column].to_pylist()]
