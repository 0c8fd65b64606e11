"""The door: JSON and tables that somebody else may have written, read within limits and refused in one line.

Sizes are looked at before anything is built: bytes, nesting, and how many values there are. What is parsed is plain
data still; `from_json` makes a class of it, which checks that its parts agree.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from writesae.config import Json
from writesae.disk.files import reason
from writesae.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

JSON_LIMIT = 4 << 20
"""Largest JSON file (bytes) that is parsed if not said otherwise."""
LARGE = 128 << 20
"""Limit for files that grow with the data: tables of contents, results."""
DEPTH, VALUES, DIGITS = 64, 2_000_000, 40
"""Deepest nesting of JSON, most values and longest integer that are parsed: with LARGE, below 1 GB of memory."""
_TEXT = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_HALF = re.compile(r"\\u[dD][89a-fA-F]")


def read_json(path: Path, limit: int = JSON_LIMIT, *, infinite: bool = False) -> Json:
    """Parse a JSON file of at most `limit` bytes; raises DataError for anything that `parse_json` refuses."""
    with _opened(path) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise DataError(f"{path} is larger than {limit:,} bytes, the most that is read as JSON here")
    return parse_json(data, str(path), infinite=infinite)


def read_lines(path: Path, limit: int = JSON_LIMIT, *, cut: bool = False) -> Iterator[tuple[Json, int]]:
    """The value of each line of a file of JSON lines, and the bytes that it takes; raises DataError with the line.

    Where a kill may have `cut` the file, what follows its last line end is left out.
    """
    with _opened(path) as file:
        for number, line in enumerate(iter(lambda: file.readline(limit), b""), 1):
            if len(line) == limit:
                raise DataError(f"{path}, line {number} is longer than {limit:,} bytes")
            if line.endswith(b"\n") or not cut:
                yield parse_json(line, f"{path}, line {number}"), len(line)


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except (OSError, ValueError) as error:  # ValueError: a NUL in its name
        raise DataError(f"cannot read {path}: {reason(error)}") from None


def parse_json(data: bytes | str, name: str, *, infinite: bool = False) -> Json:
    """Parse JSON; raises DataError naming `name` where it is no JSON in UTF-8, or more than is read.

    Refused beside what JSON is not (NaN, infinity, halves of characters): a key that occurs twice in one object, more
    than 64 levels or 2,000,000 values, integers of more than 40 digits. Configurations of models may be `infinite`.
    """
    try:
        text = data if isinstance(data, str) else data.decode("utf-8-sig")
        _check_size(_TEXT.sub(b"", text.encode() if isinstance(data, str) else data))
        constant = float if infinite else _number
        parsed: Json = json.loads(
            text, parse_constant=constant, parse_float=_number, parse_int=_integer, object_pairs_hook=_unique
        )
        if _HALF.search(text):
            json.dumps(parsed, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise DataError(f"{name} is not valid JSON: it holds half of a character") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{name} is not valid JSON: {reason(error)}") from None
    return parsed


def _check_size(marks: bytes) -> None:
    """Of JSON without its strings."""
    if sum(map(marks.count, (b",", b"[", b"{"))) > VALUES:
        raise ValueError(f"it holds more than {VALUES:,} values")
    marks = re.sub(rb"[^\[\]{}]+", b"", marks)
    for _ in range(DEPTH):  # each round takes out what is innermost
        if not marks:
            return
        marks = marks.replace(b"[]", b"").replace(b"{}", b"")
    if marks:
        raise ValueError(f"it is nested deeper than {DEPTH} levels, or its brackets do not match")


def _number(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{text[:40]} is not JSON")
    return value


def _integer(text: str) -> int:
    if len(text) > DIGITS:
        raise ValueError(f"it holds an integer of {len(text):,} digits")
    return int(text)


def _unique(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key occurs twice in one object")
    return result


def read_table(path: Path) -> pd.DataFrame:
    """A Parquet file as a table; raises DataError where it cannot be read."""
    import pandas as pd
    import pyarrow as pa

    try:
        return pd.read_parquet(path)
    except (OSError, ValueError, LookupError, TypeError, pa.ArrowException) as error:
        raise DataError(f"cannot read {path} as Parquet: {reason(error)[:200]}") from None
