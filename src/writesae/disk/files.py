"""Files that are there whole or not at all, and refusals in one line.

A file is written beside its place as `.NAME.RANDOM.partial`, synced, and renamed: whoever reads sees the old bytes or
the new ones, and a kill leaves nothing but that partial file, which never counts. What the disk refuses (no permission,
no room, a file where a folder should be, a folder that vanished) is one OutputError that names the path.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from writesae.config import Json
from writesae.errors import DataError, OutputError

if TYPE_CHECKING:
    import pandas as pd

PARTIAL = ".partial"
"""Ending of a file or folder that is still being written; such a one never counts."""
SCHEME = r"[a-z][a-z0-9+.-]+:/"
"""Beginning of an address; a path has one slash there."""


def check_local(path: Path) -> None:
    """Raise OutputError for an address that was taken for a path."""
    if re.match(SCHEME, str(path)):
        raise OutputError(f"{path} looks like an address, and only stream stores can be in object storage: give a path")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """What the operating system refuses inside is raised as one OutputError that names `path`."""
    try:
        yield
    except OSError as error:
        elsewhere = error.filename and not str(error.filename).startswith(str(path.parent))
        raise OutputError(f"cannot write {path}: {reason(error)}{f' ({error.filename})' * bool(elsewhere)}") from None


def reason(error: Exception) -> str:
    """What an exception says, in one line."""
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
    check_local(folder)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write or replace a file."""
    with whole(path) as partial:
        partial.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write or replace a file in UTF-8."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, data: Json, *, indent: int = 2, nulls: bool = False) -> None:
    """Write or replace a JSON file in UTF-8, keys in the given order.

    Raises DataError where a number is not finite, unless `nulls` asks for null in its place.
    """
    write_bytes(path, json_bytes(data, path.name, indent=indent, nulls=nulls))


def _nulls(data: Json) -> Json:
    """The same without numbers that are not finite, which JSON does not have."""
    if isinstance(data, dict):
        return {key: _nulls(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_nulls(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def json_bytes(data: Json, name: str, *, indent: int | None = 2, nulls: bool = False) -> bytes:
    """What `write_json` writes, in one line where `indent` is None; raises DataError that names `name`."""
    data = _nulls(data) if nulls else data
    try:
        return json.dumps(data, indent=indent, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    except UnicodeEncodeError:
        raise DataError(f"cannot write {name}: it would hold text that is not Unicode") from None
    except ValueError:
        raise DataError(f"cannot write {name}: it would hold a number that is not finite") from None


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write or replace a Parquet file, without the index."""
    with whole(path) as partial, partial.open("wb") as file:
        table.to_parquet(file, index=False)


@dataclass(frozen=True)
class FileEntry:
    """What one file must be."""

    sha256: str
    """SHA-256 of its bytes, 64 hexadecimal digits."""
    size: int
    """Its length in bytes."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[0-9a-f]{64}", self.sha256) or self.size < 0:
            raise DataError('a file is told by {"sha256": 64 hex digits, "size": bytes}')

    @classmethod
    def of(cls, path: Path) -> FileEntry:
        """Of a file as it is now."""
        return cls(sha256(path), path.stat().st_size)

    @classmethod
    def of_bytes(cls, data: bytes) -> FileEntry:
        """Of what a file is to hold."""
        return cls(hashlib.sha256(data).hexdigest(), len(data))

    def other_size(self, size: int) -> str | None:
        """How a file of `size` bytes differs; None where it does not."""
        return None if size == self.size else f"has {size:,} bytes instead of {self.size:,}"

    def other_content(self, sha256: str) -> str | None:
        """How a file of this hash differs; None where it does not."""
        return None if sha256 == self.sha256 else f"has changed (SHA-256 {sha256[:16]}.., not {self.sha256[:16]}..)"

    def problem(self, path: Path, *, hashes: bool = True) -> str | None:
        """How a file differs in presence, size and, with `hashes`, content; None where it does not."""
        if not path.is_file():
            return "is missing"
        if problem := self.other_size(path.stat().st_size):
            return problem
        return self.other_content(sha256(path)) if hashes else None


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal; memory use does not depend on its size. Raises DataError if unreadable."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"cannot read {path}: {reason(error)}") from None
