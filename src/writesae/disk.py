"""Files that are there whole or not at all, and output folders that belong to one run.

A file is written beside its place as `.NAME.RANDOM.partial`, synced, and renamed: whoever reads sees the old bytes or
the new ones, and a kill leaves nothing but that partial file, which never counts. What the disk refuses (no permission,
no room, a file where a folder should be, a folder that vanished) is one OutputError that names the path; what cannot be
read is one DataError.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from writesae.config import Json
from writesae.errors import DataError, InputError, OutputError
from writesae.hub import is_hub_id

if TYPE_CHECKING:
    import pandas as pd

PARTIAL = ".partial"
"""Ending of a file or folder that is still being written; such a one never counts."""
MARK = "run.json"
"""The file that says whose an output folder is."""
JSON_LIMIT = 4 << 20
"""Largest JSON file (bytes) that is parsed if not said otherwise; parsing needs up to some 30 times as much memory."""
LARGE = 1 << 30
"""Limit for files that grow with the data: tables of contents, results."""
LONGEST = 50
"""Characters of a value that are shown in an error."""
JSON_DEPTH = 64
"""Deepest nesting of JSON that is parsed."""
_BRACKETS = re.compile(rb'"(?:[^"\\]|\\.)*"?|[\[{\]}]', re.DOTALL)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """What the operating system refuses inside is raised as one OutputError that names `path`."""
    try:
        yield
    except OSError as error:
        elsewhere = error.filename and not str(error.filename).startswith(str(path.parent))
        raise OutputError(f"cannot write {path}: {_reason(error)}{f' ({error.filename})' * bool(elsewhere)}") from None


def _reason(error: Exception) -> str:
    return " ".join((getattr(error, "strerror", None) or str(error) or type(error).__name__).split())


def partial_beside(path: Path) -> Path:
    """A name beside `path` for what is still being written."""
    return path.parent / f".{path.name}.{uuid4().hex[:12]}{PARTIAL}"


def sync(path: Path) -> None:
    """Force a file or folder to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A file to write to that becomes `path` in one step when the block ends without an error, and vanishes otherwise.

    Raises OutputError where the disk refuses; what was at `path` before is then unchanged. A link stays a link, and a
    pipe or terminal is written to as it is.
    """
    with writing(path):
        if path.exists() and not path.is_file() and not path.is_dir():
            yield path
            return
        place = Path(os.path.realpath(path))
        partial = partial_beside(place)
        try:
            yield partial
            sync(partial)
            os.replace(partial, place)
            sync(place.parent)
        finally:
            partial.unlink(missing_ok=True)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, if they are not there; raises OutputError where that cannot be."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write or replace a file."""
    with whole(path) as partial:
        partial.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write or replace a file in UTF-8."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, data: Json, *, indent: int = 2, finite: bool = True) -> None:
    """Write or replace a JSON file in UTF-8, keys in the given order.

    Raises DataError where a number is not finite, unless `finite` is False: then NaN is written as such.
    """
    write_bytes(path, json_bytes(data, path.name, indent=indent, finite=finite))


def json_bytes(data: Json, name: str, *, indent: int = 2, finite: bool = True) -> bytes:
    """What `write_json` writes; raises DataError that names `name`."""
    try:
        return json.dumps(data, indent=indent, ensure_ascii=False, allow_nan=not finite).encode() + b"\n"
    except UnicodeEncodeError:
        raise DataError(f"cannot write {name}: it would hold text that is not Unicode") from None
    except ValueError:
        raise DataError(f"cannot write {name}: it would hold a number that is not finite") from None


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write or replace a Parquet file, without the index."""
    with whole(path) as partial, partial.open("wb") as file:
        table.to_parquet(file, index=False)


def read_json(path: Path, limit: int = JSON_LIMIT, *, finite: bool = True) -> Json:
    """Parse a JSON file of at most `limit` bytes and 64 levels; raises DataError for anything else."""
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise DataError(f"cannot read {path}: {_reason(error)}") from None
    if len(data) > limit:
        raise DataError(f"{path} is larger than {limit:,} bytes, the most that is read as JSON here")
    return parse_json(data, str(path), finite=finite)


def parse_json(data: bytes, name: str, *, finite: bool = True) -> Json:
    """Parse JSON bytes with bounded nesting, no repeated keys, and no NaN unless `finite` is False.

    Raises DataError that names `name`.
    """
    depth = 0
    for match in _BRACKETS.finditer(data):
        token = match[0]
        depth += (token in b"[{") - (token in b"]}")
        if depth > JSON_DEPTH:
            raise DataError(f"{name} is nested deeper than {JSON_DEPTH} levels")

    def constant(word: str) -> float:
        if finite:
            raise ValueError(f"{word} is not JSON")
        return float(word)

    def unique(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
        result = dict(pairs)
        if len(result) != len(pairs):
            raise ValueError("a key occurs twice in one object")
        return result

    try:
        parsed: Json = json.loads(data.decode("utf-8"), parse_constant=constant, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{name} is not valid JSON: {error}") from None
    return parsed


def read_table(path: Path) -> pd.DataFrame:
    """A Parquet file as a table; raises DataError where it cannot be read."""
    import pandas as pd
    import pyarrow as pa

    try:
        return pd.read_parquet(path)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise DataError(f"cannot read {path} as Parquet: {_reason(error)}") from None


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal; memory use does not depend on its size. Raises DataError if unreadable."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"cannot read {path}: {_reason(error)}") from None


def check_place(path: Path, *, file: bool = False) -> None:
    """Raise OutputError where no folder (or, with `file`, no file) can be written at `path`; makes nothing.

    To be asked before anything long is begun.
    """
    try:
        there = next(place for place in (path, *path.absolute().parents) if place.exists())
        folder = there.parent if file and there == path and not there.is_dir() else there
        if file and path.is_dir():
            raise OutputError(f"{path} is a folder: give a file to write")
        if not folder.is_dir():
            raise OutputError(f"{folder} is a file: give another place than {path}")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise OutputError(f"{folder} cannot be written to: give another place than {path}")
    except OSError as error:  # a name too long, a folder that may not be searched
        raise OutputError(f"cannot write {path}: {_reason(error)}") from None


def missing(path: Path, kind: str = "file or folder", names: Iterable[str] = ()) -> str:
    """What is said of a path where nothing is, with what it may have meant: names beside it, or other `names`."""
    name, parent = path.name, path.parent
    while not parent.is_dir():
        name, parent = parent.name, parent.parent
    beside = [place.name for place in parent.iterdir()] if os.access(parent, os.R_OK) else []
    near = [str(parent / close) for close in get_close_matches(name, beside)]
    near += get_close_matches(str(path), names, n=1)
    return f"there is no {kind} {path}" + f" (near: {', '.join(near)})" * bool(near)


def check_there(path: Path, *, hub: bool = False) -> None:
    """Raise InputError where nothing is at `path`, unless (with `hub`) it is written like a repository on the Hub.

    To be asked before anything long is begun.
    """
    if not path.exists() and not (hub and is_hub_id(str(path))):
        raise InputError(f"{missing(path, 'folder')}, and it is no Hub id user/name" if hub else missing(path))


def check_owner(folder: Path, kind: str, *marks: str) -> bool:
    """Whether a folder already belongs to something of this kind, which one of the files `marks` tells.

    Raises OutputError where it holds other things only, or cannot be written to.
    """
    check_place(folder)
    with writing(folder):
        names = (path.name for path in folder.iterdir()) if folder.exists() else ()
        held = sorted(name for name in names if not name.endswith(PARTIAL))
    if held and not set(marks) & set(held):
        raise OutputError(f"{folder} holds {held[0]} and no {kind}: choose another folder, or empty it")
    return bool(held)


def claim(folder: Path, kind: str, asked: Mapping[str, Json]) -> bool:
    """Make `folder` that of one run, or see that it is; returns whether the run was begun before.

    `kind` says in words what is run ("training run"), `asked` is everything that makes the run what it is; it is kept
    in `run.json`. Raises OutputError where the folder holds anything else, saying what differs.
    """
    mine = json.loads(json_bytes(dict(asked), MARK))
    if not check_owner(folder, kind, MARK):
        make_folder(folder)
        write_json(folder / MARK, mine)
        return False
    theirs = read_json(folder / MARK)
    if theirs != mine:
        raise OutputError(f"{folder} belongs to another {kind} ({_difference(theirs, mine)}): choose another folder")
    return True


def _difference(theirs: Json, mine: Json) -> str:
    """The first of what two runs disagree on, in words."""
    there, here = _flat(theirs), _flat(mine)
    names = [name for name in {**here, **there} if there.get(name, _flat) != here.get(name, _flat)]
    told = [f"{name} is {_value(there, name)} there and {_value(here, name)} here" for name in names[:3]]
    return ", ".join(told) + (f", and {len(names) - 3} more" if len(names) > 3 else "")


def _flat(data: Json, name: str = "") -> dict[str, Json]:
    """Nested objects by dotted names."""
    if not isinstance(data, dict) or not data:
        return {name or "it": data}
    found: dict[str, Json] = {}
    for key, value in data.items():
        found |= _flat(value, f"{name}.{key}" if name else key)
    return found


def _value(flat: Mapping[str, Json], name: str) -> str:
    text = json.dumps(flat[name], ensure_ascii=False) if name in flat else "not set"
    return text if len(text) <= LONGEST else text[: LONGEST // 2] + ".."
