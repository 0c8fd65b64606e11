"""Files of `torch.save`, zip archives and (before 1.6) rows of pickles, read by torch's restricted unpickler."""

from __future__ import annotations

import io
import os
import pickle
import stat
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath

import torch

from writesae.artifacts.legacy.inert import Inert, describe
from writesae.artifacts.legacy.scan import PICKLE_LIMIT, scan
from writesae.errors import DataError, InputError

_MAGIC = pickle.dumps(0x1950A86A20F9469CFC6C, 2)
_MOST_ENTRIES, _LARGEST_DIRECTORY = 100_000, 16 << 20
_DAMAGE = (
    pickle.UnpicklingError, zipfile.BadZipFile, struct.error, OSError, EOFError, RuntimeError, AssertionError,
    ArithmeticError, AttributeError, LookupError, TypeError, ValueError,
)  # fmt: skip
"""What torch and zipfile raise on a file that is not as it should be."""


def read_archive(path: Path) -> object:
    """The object that a `.pt` file holds: containers, tensors, and an `Inert` record for everything else.

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
    zipped = start[:4] == b"PK\x03\x04"
    if path.suffix == ".safetensors" or not (
        zipped or start[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
    ):
        raise InputError(f"{path} is not a checkpoint written by torch.save (it starts with {start[:4]!r})")
    try:
        return _read_zip(path) if zipped else _read_row(path)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    except _DAMAGE as error:
        told = str(error).split("WeightsUnpickler error: ")[-1].strip().splitlines() or [type(error).__name__]
        raise DataError(f"{path}: the file is damaged or hostile, torch refuses it: {told[0][:160]}") from None


def _check_directory(path: Path) -> None:
    """Refuse a directory of millions of entries before `zipfile` reads it."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - (1 << 16) - 200))
        tail = file.read()
    end = tail.rfind(b"PK\5\6")
    large = end >= 76 and tail[end - 20 : end - 16] == b"PK\6\7"  # the record of ZIP64 stands 76 bytes before
    size = int.from_bytes(tail[end - 36 : end - 28] if large else tail[end + 12 : end + 16], "little")
    if end >= 0 and size > _LARGEST_DIRECTORY:
        raise DataError(f"the archive has a directory of {size:,} bytes, more than {_MOST_ENTRIES:,} entries take")


def _read_zip(path: Path) -> object:
    _check_directory(path)
    with zipfile.ZipFile(path) as archive:
        entries = _checked(archive, path.stat().st_size)
        pickles = [name for name in entries if PurePosixPath(name).name == "data.pkl" and name.count("/") == 1]
        if len(pickles) != 1:
            raise DataError(f"the archive holds {len(pickles)} data.pkl where a checkpoint has one")
        order = pickles[0].removesuffix("data.pkl") + "byteorder"
        if order in entries and (entries[order] > 16 or archive.read(order) != b"little"):
            raise DataError("its numbers are not little-endian, which is not supported")
        if entries[pickles[0]] > PICKLE_LIMIT:
            raise DataError(f"its pickle is larger than {PICKLE_LIMIT:,} bytes")
        if (damaged := archive.testzip()) is not None:  # torch does not look at the check sums
            raise DataError(f"the archive is damaged: {damaged[:120]!r} differs from its check sum")
        names = scan(io.BytesIO(archive.read(pickles[0]))).names
    root = _load(path, names, mmap=True)
    _check_tensors(root, set(entries.values()).__contains__)
    return root


def _checked(archive: zipfile.ZipFile, size: int) -> dict[str, int]:
    """Sizes of the entries by name."""
    infos = archive.infolist()
    if len(infos) > _MOST_ENTRIES:
        raise DataError(f"the archive has more than {_MOST_ENTRIES:,} entries")
    entries: dict[str, int] = {}
    for entry in infos:
        name, told = PurePosixPath(entry.filename), repr(entry.filename[:120])
        if name.is_absolute() or ".." in name.parts or "\\" in entry.filename or ":" in entry.filename:
            raise DataError(f"the archive has an entry named {told}, outside of it; refused")
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise DataError(f"the archive has a link, {told}; refused")
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > size:
            raise DataError(f"the archive entry {told} is compressed or larger than the file; refused")
        if entry.filename in entries:
            raise DataError(f"the archive has two entries named {told}; refused")
        entries[entry.filename] = entry.file_size
    return entries


def _read_row(path: Path) -> object:
    data = path.read_bytes()
    if not data.startswith(_MAGIC):
        raise DataError("it is a bare pickle, not a checkpoint written by torch.save; refused")
    file = io.BytesIO(data)
    names: dict[str, Callable[..., object] | None] = {}
    edits: dict[int, bytes] = {}
    storages: set[str] = set()
    ends: list[int] = []
    for _ in range(5):  # magic number, version, machine, object, list of storages
        found = scan(file)
        names |= found.names
        edits |= found.edits
        storages |= found.storages
        ends.append(file.seek(found.end))
    if data[ends[3] : ends[4]] != pickle.dumps(sorted(storages), 2):  # torch would leave others as its memory was
        raise DataError("its list of storages does not fit its tensors")
    pieces, done = [], 0
    for position in sorted(edits):
        pieces += [data[done:position], edits[position]]
        done = position + 1
    # from memory: given a file, torch would try whether it is a tar archive of torch 0.1, and unpack it
    root = _load(io.BytesIO(b"".join([*pieces, data[done:]])), names)
    _check_tensors(root, lambda size: size <= len(data))
    return root


def _load(source: Path | io.BytesIO, names: Mapping[str, Callable[..., object] | None], mmap: bool = False) -> object:
    found: list[Callable[..., object] | tuple[Callable[..., object], str]]
    found = [(kind, name) for name, kind in names.items() if kind is not None]
    others = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()  # what the process trusts elsewhere is not trusted here
    try:
        with torch.serialization.safe_globals(found):
            root: object = torch.load(source, map_location="cpu", weights_only=True, mmap=mmap)
    finally:
        torch.serialization.add_safe_globals(others)
    return root


def _check_tensors(root: object, held: Callable[[int], bool]) -> None:
    """Refuse tensors that claim more numbers than the file holds, before any of them is touched."""
    waiting, seen = [root], set[int]()
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, torch.Tensor | dict) and any(
            hasattr(type(value), str(key)) for key in getattr(value, "__dict__", {})
        ):
            raise DataError(f"it gives {describe(value)} an attribute in place of a method; refused")
        if isinstance(value, torch.Tensor):
            size = value.untyped_storage().nbytes()
            if value.ndim > 8 or value.numel() * value.element_size() > size:
                shape = str(tuple(value.shape))[:80]
                raise DataError(f"tensor of shape {shape} does not fit into its storage of {size:,} bytes")
            if not held(size):
                raise DataError(f"a tensor declares {size:,} bytes, which the file does not hold")
        elif isinstance(value, Inert):
            waiting.append(value.state)
        elif isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, list | tuple):
            waiting += value
