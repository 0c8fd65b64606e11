"""Untyped JSON into frozen dataclasses, with one clear error that names the file. Unknown keys are left alone."""

from __future__ import annotations

import math
from typing import NamedTuple, TypeVar

import cattrs
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
    low, high = (math.nan if bound is None else _number(bound, float) for bound in value)
    return None if math.isnan(low + high) else (low, high)


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
