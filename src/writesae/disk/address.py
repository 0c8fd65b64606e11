"""Places by address: a folder, or `scheme://..` of object storage, where nothing is renamed, appended to or locked.

What a place can do is therefore what object storage can: whole files by name, put, listed, read and deleted.
"""

from __future__ import annotations

import hashlib
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from writesae.config import Json
from writesae.disk.files import PARTIAL, SCHEME, partial_beside, sha256, sync, writing
from writesae.disk.folders import holds, recover, regular_files
from writesae.disk.places import alone, check_place, missing
from writesae.disk.read import JSON_LIMIT, read_json
from writesae.errors import InputError
from writesae.hub import is_hub_id

if TYPE_CHECKING:
    from zarr.abc.store import Store

AT_ONCE = 8
"""Files that are written or read side by side."""


class Place(ABC):
    """A folder of files, wherever it is. Names are relative and were checked; files appear whole or not at all.

    What cannot be read raises DataError and what cannot be written OutputError, both with the address.
    """

    errors: tuple[type[Exception], ...]
    """What reading through `zarr` raises where the place fails."""

    def __init__(self, address: str) -> None:
        self.address = address

    def __str__(self) -> str:
        return self.address

    def __reduce__(self) -> tuple[type[Place], tuple[str]]:
        return type(self), (self.address,)

    @abstractmethod
    def exists(self) -> bool:
        """Whether anything is there."""

    @abstractmethod
    def holds(self) -> list[str]:
        """The names directly in it that count, in order; none where nothing is there."""

    @abstractmethod
    def files(self) -> dict[str, int]:
        """Names and sizes of all files, without those of systems and tools; raises DataError for what is no file."""

    @abstractmethod
    def has(self, name: str) -> bool:
        """Whether there is a file of this name."""

    @abstractmethod
    def json(self, name: str, limit: int = JSON_LIMIT) -> Json:
        """Parse a JSON file of at most `limit` bytes."""

    @abstractmethod
    def sha256(self, name: str) -> str:
        """SHA-256 of a file, in hexadecimal; memory use does not depend on its size."""

    @abstractmethod
    def put(self, files: Mapping[str, bytes]) -> None:
        """Write or replace files; when this returns, all of them outlast a loss of power."""

    @abstractmethod
    def put_new(self, name: str, data: bytes) -> bool:
        """Write a file unless there is one; returns whether it now holds `data`."""

    @abstractmethod
    def delete(self, names: Iterable[str]) -> None:
        """Take files away that are there."""

    @abstractmethod
    def check(self) -> None:
        """Raise OutputError where nothing can be written, or another process is at work. Makes nothing."""

    @abstractmethod
    def alone(self) -> AbstractContextManager[None]:
        """Keep other processes from writing until the block ends; raises OutputError naming one that does."""

    @abstractmethod
    def zarr(self) -> Store:
        """What Zarr reads it by."""


class Folder(Place):
    """A folder of this machine."""

    errors = (OSError, ValueError, RuntimeError)

    @property
    def path(self) -> Path:
        """Of the folder."""
        return Path(self.address)

    def exists(self) -> bool:
        return self.path.exists()

    def holds(self) -> list[str]:
        return holds(self.path)

    def files(self) -> dict[str, int]:
        return regular_files(self.path)

    def has(self, name: str) -> bool:
        return (self.path / name).is_file()

    def json(self, name: str, limit: int = JSON_LIMIT) -> Json:
        return read_json(self.path / name, limit)

    def sha256(self, name: str) -> str:
        return sha256(self.path / name)

    def put(self, files: Mapping[str, bytes]) -> None:
        paths = {self.path / name: data for name, data in files.items()}
        folders = {self.path, *(self.path / parent for name in files for parent in Path(name).parents)}
        with writing(self.path), ThreadPoolExecutor(AT_ONCE) as pool:  # a journal is written once for all
            for folder in {path.parent for path in paths}:
                folder.mkdir(parents=True, exist_ok=True)
            list(pool.map(_replace, paths.keys(), paths.values()))
            list(pool.map(sync, folders))

    def put_new(self, name: str, data: bytes) -> bool:
        if self.has(name):  # nobody else writes here
            return self.sha256(name) == hashlib.sha256(data).hexdigest()
        self.put({name: data})
        return True

    def delete(self, names: Iterable[str]) -> None:
        with writing(self.path):
            for path in (self.path / name for name in names):
                path.unlink()
                if path.parent != self.path and not any(path.parent.iterdir()):
                    path.parent.rmdir()

    def check(self) -> None:
        check_place(self.path)

    @contextmanager
    def alone(self) -> Iterator[None]:
        with alone(self.path):
            yield
            for partial in self.path.rglob(f"*{PARTIAL}"):  # of kills before
                partial.unlink(missing_ok=True)

    def zarr(self) -> Store:
        from zarr.storage import LocalStore

        return LocalStore(self.path, read_only=True)


def _replace(path: Path, data: bytes) -> None:
    partial = partial_beside(path)  # a worker that was given up may still be writing the same
    try:
        partial.write_bytes(data)
        sync(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def is_address(text: str | Path) -> bool:
    """Whether this is `scheme://..` rather than a path."""
    return re.match(f"{SCHEME}/", str(text)) is not None


def place(address: str | Path) -> Place:
    """What is, or will be, at a path or at an address like `s3://bucket/name`.

    Raises InputError where the package for such addresses is missing, saying what to install.
    """
    if not is_address(address):
        return Folder(str(Path(address)))
    from writesae.disk.remote import Bucket

    return Bucket(str(address).rstrip("/"))


def check_there(path: str | Path, remedy: str = "check the path", *, hub: bool = False) -> None:
    """Raise InputError where nothing is at a path or address, unless (with `hub`) it is written like one on the Hub.

    To be asked before anything long is begun. `remedy` says what to do.
    """
    if is_address(path):
        if not place(path).exists():
            raise InputError(f"there is nothing at {path}: {remedy}")
        return
    path = Path(path)
    if not path.exists():
        recover(path)
    if not path.exists() and not (hub and is_hub_id(str(path))):
        said = f"{missing(path, 'folder')}, and it is no Hub id user/name" if hub else missing(path)
        raise InputError(
            f"{said}: {'give a folder that `writesae train` or `pull` made, or a Hub id' if hub else remedy}"
        )
