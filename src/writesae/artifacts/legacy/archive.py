"""The containers that `torch.save` has written: a zip archive (since 1.6) and, before it, a row of pickles."""

from __future__ import annotations

import io
import os
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from writesae.artifacts.legacy.machine import PICKLE_LIMIT, read_pickle
from writesae.artifacts.legacy.records import STORAGES, Global, Storage
from writesae.errors import DataError, InputError

_MAGIC = 0x1950A86A20F9469CFC6C
_MOST_ENTRIES = 100_000


def read_archive(path: Path) -> object:
    """The object that a `.pt` file holds, as inert records and tensors that are read when asked for.

    No code of the file runs, nothing is extracted, and memory stays bounded by the file's size. Raises InputError for
    what is no such file, DataError for a damaged or hostile one, naming what was refused.
    """
    path = Path(path)
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise InputError(f"{path} is not a regular file")
        with path.open("rb") as file:
            start = file.read(8)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    try:
        if start[:4] == b"PK\x03\x04":
            return _read_zip(path)
        if start[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
            return _read_row(path)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    raise InputError(f"{path} is not a checkpoint written by torch.save (it starts with {start[:4]!r})")


def _read_zip(path: Path) -> object:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = {info.filename: info for info in _checked(archive, path.stat().st_size)}
            pickles = [name for name in entries if PurePosixPath(name).name == "data.pkl" and name.count("/") == 1]
            if len(pickles) != 1:
                raise DataError(f"the archive holds {len(pickles)} data.pkl where a checkpoint has one")
            root = pickles[0].removesuffix("data.pkl")
            if entries[pickles[0]].file_size > PICKLE_LIMIT:
                raise DataError(f"its pickle is larger than {PICKLE_LIMIT:,} bytes")
            data = archive.read(pickles[0])
            order = entries.get(root + "byteorder")
            if order is not None and (order.file_size > 16 or archive.read(order) != b"little"):
                raise DataError("its numbers are not little-endian, which is not supported")
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, OSError, ValueError) as error:
        raise DataError(f"the archive is damaged or cut short: {error}") from None

    def persistent(reference: object) -> object:
        key, name, count = _storage_reference(reference)
        entry = entries.get(f"{root}data/{key}")
        dtype = STORAGES[name]
        if entry is None or entry.file_size != count * dtype.itemsize:
            held = "none" if entry is None else f"{entry.file_size:,}"
            raise DataError(f"storage {key} declares {count * dtype.itemsize:,} bytes; the archive holds {held}")
        return Storage(key, dtype, count, _zip_reader(path, entry.filename))

    return read_pickle(data, persistent)[0]


def _checked(archive: zipfile.ZipFile, size: int) -> list[zipfile.ZipInfo]:
    entries = archive.infolist()
    if len(entries) > _MOST_ENTRIES:
        raise DataError(f"the archive has more than {_MOST_ENTRIES:,} entries")
    names = set()
    for entry in entries:
        name = PurePosixPath(entry.filename)
        if name.is_absolute() or ".." in name.parts or "\\" in entry.filename or ":" in entry.filename:
            raise DataError(f"the archive has an entry named {entry.filename[:120]!r}, outside of it; refused")
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise DataError(f"the archive has a link, {entry.filename[:120]!r}; refused")
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > size:
            raise DataError(
                f"the archive entry {entry.filename[:120]!r} is compressed or larger than the file; refused"
            )
        if entry.filename in names:
            raise DataError(f"the archive has two entries named {entry.filename[:120]!r}; refused")
        names.add(entry.filename)
    return entries


def _zip_reader(path: Path, name: str) -> Callable[[], bytes]:
    def read() -> bytes:
        try:
            with zipfile.ZipFile(path) as archive:
                return archive.read(name)
        except (zipfile.BadZipFile, EOFError, OSError, RuntimeError, ValueError) as error:
            raise DataError(f"{path}: the archive is damaged or cut short: {error}") from None

    return read


def _storage_reference(reference: object) -> tuple[str, str, int]:
    if isinstance(reference, tuple) and len(reference) in (5, 6) and reference[0] == "storage":
        _, kind, key, _, count = reference[:5]
        name = kind.name if isinstance(kind, Global) and kind.module in ("torch", "torch.storage") else ""
        plain = isinstance(key, str) and len(key) < 64 and "/" not in key and type(count) is int and count >= 0
        if plain and name in STORAGES and (len(reference) == 5 or reference[5] is None):
            return key, name, count
    raise DataError("the file refers to something that is not a plain storage of numbers; refused")


def _read_row(path: Path) -> object:
    size = path.stat().st_size
    places: dict[str, tuple[int, int]] = {}
    widths: dict[str, int] = {}

    def persistent(reference: object) -> object:
        if isinstance(reference, tuple) and len(reference) == 4 and reference[0] == "module":
            return reference[1]  # the class; the source text beside it is not used
        key, name, count = _storage_reference(reference)
        dtype = STORAGES[name]
        if count * dtype.itemsize > size or widths.setdefault(key, dtype.itemsize) != dtype.itemsize:
            raise DataError(f"storage {key} declares {count * dtype.itemsize:,} bytes; the file has {size:,}")
        return Storage(key, dtype, count, lambda: _row_bytes(path, places, key, count * dtype.itemsize))

    with path.open("rb") as file:
        if _next_pickle(file, _no_storage) != _MAGIC:
            raise DataError("it is a bare pickle, not a checkpoint written by torch.save; refused")
        _next_pickle(file, _no_storage)
        _next_pickle(file, _no_storage)
        result = _next_pickle(file, persistent)
        keys = _next_pickle(file, _no_storage)
        if not isinstance(keys, list) or {key for key in keys if isinstance(key, str)} != widths.keys():
            raise DataError("its list of storages does not fit its tensors")
        for key in keys:
            header = file.read(8)
            length = struct.unpack("<q", header)[0] * widths[key] if len(header) == 8 else -1
            if length < 0 or file.tell() + length > size:
                raise DataError(f"storage {key} is cut short")
            places[key] = (file.tell(), length)
            file.seek(length, io.SEEK_CUR)
    return result


def _next_pickle(file: BinaryIO, persistent: Callable[[object], object]) -> object:
    start = file.tell()
    value, length = read_pickle(file.read(PICKLE_LIMIT), persistent)
    file.seek(start + length)
    return value


def _no_storage(reference: object) -> object:
    raise DataError("the file refers to a storage where none can be; refused")


def _row_bytes(path: Path, places: dict[str, tuple[int, int]], key: str, wanted: int) -> bytes:
    start, length = places[key]
    if length != wanted:
        raise DataError(f"{path}: storage {key} declares {wanted:,} bytes; the file holds {length:,}")
    with path.open("rb") as file:
        file.seek(start)
        return file.read(length)
