"""Untyped JSON into frozen dataclasses, with one clear error that names the file. Unknown keys are left alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple, TypeVar

import cattrs
import pandas as pd
import pyarrow as pa
from cattrs.errors import BaseValidationError

from writesae.errors import DataError
from writesae.show.figures import Interval

T = TypeVar("T")


class Test(NamedTuple):
    """A two-sided test; None where there was nothing to test."""

    statistic: float | None
    p: float | None


def _number(value: object, _: type) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value!r} is not a number")
    return float(value)


def _interval(value: object, _: object) -> Interval | None:
    """A pair of bounds; none where a bound could not be computed."""
    if value is None:
        return None
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise TypeError(f"{value!r} is not a pair of bounds")
    if value[0] is None or value[1] is None:
        return None
    return _number(value[0], float), _number(value[1], float)


def _test(value: object, _: object) -> Test:
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise TypeError(f"{value!r} is not a statistic with its p value")
    return Test(*(None if one is None else _number(one, float) for one in value))


converter = cattrs.Converter()
converter.register_structure_hook(float, _number)
converter.register_structure_hook(Interval | None, _interval)
converter.register_structure_hook(Test, _test)
converter.register_structure_hook_func(lambda kind: kind is object, lambda value, _: value)


def structure(kind: type[T], data: object, name: str) -> T:
    """`data` as a `kind`; raises DataError that names `name` and what is wrong with it."""
    try:
        return converter.structure(data, kind)
    except (BaseValidationError, TypeError, ValueError, KeyError) as error:
        reasons = "; ".join(cattrs.transform_error(error, path=name))
        raise DataError(f"cannot understand {name}: {reasons}") from None


def read_json(path: Path) -> object:
    """The content of a JSON file, NaN as None; raises DataError where it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda _: None)
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"cannot read {path} as JSON: {error}") from None


def read_table(path: Path) -> pd.DataFrame:
    """A Parquet file as a table; raises DataError where it cannot be read."""
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise DataError(f"cannot read {path} as Parquet: {' '.join(str(error).split())}") from None
