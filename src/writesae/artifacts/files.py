"""Reading and writing files so that nothing half-written, oversized or outside the folder is ever used.

A folder is written beside its final place under a name that ends in `.partial`, synced, and renamed once complete.
Names inside a folder come from JSON that somebody else may have written: they are plain relative names, and what
they point to is a regular file of that folder, never a link out of it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from uuid import uuid4

from writesae.config import Json
from writesae.errors import DataError, InputError, OutputError

PARTIAL = ".partial"
"""Ending of a folder that is still being written; such a folder is never loaded."""
JSON_LIMIT = 4 << 20
"""Largest JSON file (bytes) that is parsed; parsing needs up to some 30 times the size in memory."""
JSON_DEPTH = 64
"""Deepest nesting of JSON that is parsed."""
_BLOCK = 1 << 20
_BRACKETS = re.compile(rb'"(?:[^"\\]|\\.)*"?|[\[{\]}]', re.DOTALL)


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal; memory use does not depend on its size."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json_safely(path: Path, limit: int = JSON_LIMIT) -> Json:
    """Parse a JSON file of at most `limit` bytes and 64 levels; raises DataError for anything else."""
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    if len(data) > limit:
        raise DataError(f"{path} is larger than {limit:,} bytes, the most that is read as JSON here")
    return parse_json_safely(data, str(path))


def parse_json_safely(data: bytes, name: str) -> Json:
    """Parse JSON bytes with bounded nesting, no NaN and no repeated keys; raises DataError naming `name`."""
    depth = 0
    for match in _BRACKETS.finditer(data):
        token = match[0]
        depth += (token in b"[{") - (token in b"]}")
        if depth > JSON_DEPTH:
            raise DataError(f"{name} is nested deeper than {JSON_DEPTH} levels")

    def refuse(constant: str) -> float:
        raise ValueError(f"{constant} is not JSON")

    def unique(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
        result = dict(pairs)
        if len(result) != len(pairs):
            raise ValueError("a key occurs twice in one object")
        return result

    try:
        parsed: Json = json.loads(data.decode("utf-8"), parse_constant=refuse, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{name} is not valid JSON: {error}") from None
    return parsed


def inside(folder: Path, name: str) -> Path:
    """The regular file `name` of `folder`; raises DataError for `..`, absolute names, missing files and links.

    A link is followed only where the Hub's cache makes one: from `snapshots/` into `blobs/` of the same repository.
    """
    check_name(name, folder)
    path = folder / name
    real, root = Path(os.path.realpath(path)), Path(os.path.realpath(folder))
    if real != root / name and not any(real.is_relative_to(blobs) for blobs in _hub_blobs(root)):
        raise DataError(f"{path} is a link that leads out of the folder; refused")
    if not real.is_file():
        raise DataError(f"{path} is missing or is not a regular file")
    return path


def check_name(name: str, folder: Path) -> None:
    """Raise DataError for a name that is not relative, plain and inside (`..`, absolute, drives, `./`)."""
    pure = PurePosixPath(name)
    unusual = any(character in name for character in "\\:\0") or any(part == ".." for part in pure.parts)
    if not name or unusual or pure.is_absolute() or str(pure) != name or name == ".":
        raise DataError(f"{folder}: the name {name!r} is not a plain name inside the folder; refused")


def _hub_blobs(folder: Path) -> Iterator[Path]:
    for parent in folder.parents:
        if parent.name == "snapshots" and (parent.parent / "blobs").is_dir():
            yield Path(os.path.realpath(parent.parent / "blobs"))


def write_file(path: Path, data: bytes) -> None:
    """Write and sync a file that must not exist yet."""
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def json_bytes(data: Json, name: str) -> bytes:
    """JSON in UTF-8, in the given order; raises DataError where a number is not finite."""
    try:
        return json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    except ValueError:
        raise DataError(f"cannot write {name}: it would hold a number that is not finite") from None


def write_json(path: Path, data: Json) -> None:
    """Write and sync a JSON file that must not exist yet."""
    write_file(path, json_bytes(data, path.name))


def replace_file(path: Path, data: bytes) -> None:
    """Write a file in one step: readers see the old bytes or the new ones."""
    partial = path.parent / f".{path.name}.{uuid4().hex[:12]}{PARTIAL}"
    try:
        write_file(partial, data)
        os.replace(partial, path)
        sync(path.parent)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from None
    finally:
        partial.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Force a file or folder to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def new_folder(folder: Path, replaceable: Callable[[Path], bool]) -> Iterator[Path]:
    """A temporary folder that becomes `folder` when the block ends without an error, and vanishes otherwise.

    An existing `folder` that is not empty is replaced only where `replaceable(folder)` says so; the old one stays
    whole until the new one is on disk. Raises OutputError for a folder that belongs to something else.
    """
    folder = Path(folder)
    if folder.name.endswith(PARTIAL):
        raise InputError(f"{folder}: names that end in {PARTIAL} are kept for unfinished folders; choose another")
    _check_free(folder, replaceable)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = folder.parent / f".{folder.name}.{uuid4().hex[:12]}{PARTIAL}"
        partial.mkdir()
    except OSError as error:
        raise OutputError(f"cannot write {folder}: {error.strerror}") from None
    try:
        yield partial
        for inner in sorted((path for path in partial.rglob("*") if path.is_dir()), reverse=True):
            sync(inner)
        sync(partial)
        _check_free(folder, replaceable)
        _swap(partial, folder)
    except OSError as error:
        raise OutputError(f"cannot write {folder}: {error}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _check_free(folder: Path, replaceable: Callable[[Path], bool]) -> None:
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise OutputError(f"{folder} exists and is not a folder; choose another place")
    if folder.is_dir() and any(folder.iterdir()) and not replaceable(folder):
        raise OutputError(f"{folder} is not empty and belongs to something else; choose another or empty it first")


def _swap(partial: Path, folder: Path) -> None:
    old = None
    if folder.is_dir() and any(folder.iterdir()):
        old = folder.parent / f".{folder.name}.{uuid4().hex[:12]}.old{PARTIAL}"
        os.rename(folder, old)
    try:
        os.rename(partial, folder)
    except OSError:
        if old is not None:
            os.rename(old, folder)
        raise
    sync(folder.parent)
    if old is not None:
        shutil.rmtree(old, ignore_errors=True)
