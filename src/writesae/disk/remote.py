"""Object storage by fsspec: `s3://`, `gs://`, `memory://` and what else it knows. The one file that imports it.

There is no rename, no append and no lock: an object appears whole when it is put, one that must be new is put on that
condition, and who is at work says so in a lease, an object that counts as long as its holder renews it.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from writesae.config import Json, from_json
from writesae.disk.address import Place
from writesae.disk.files import json_bytes, reason
from writesae.disk.folders import is_system
from writesae.disk.lock import this_process
from writesae.disk.read import JSON_LIMIT, parse_json
from writesae.errors import ConfigError, DataError, InputError, OutputError, WritesaeError

if TYPE_CHECKING:
    from zarr.abc.store import Store

LEASES = ".lease"
SECONDS = 60.0
"""How long a lease counts that is not renewed; clocks that differ by more than that defeat it."""
BLOCK = 16 << 20
"""Bytes that are hashed at a time."""
OPTIONS = {"use_listings_cache": False}


class Bucket(Place):
    """A folder of objects."""

    errors = (Exception,)  # each service has its own
    lease: Lease | None = None

    def exists(self) -> bool:
        return self._kind("") is not None

    def holds(self) -> list[str]:
        with self._asking("read"):
            try:
                names = (name.rstrip("/").rpartition("/")[2] for name in self._files.ls(self._root, detail=False))
                return sorted(name for name in names if not is_system(name))
            except FileNotFoundError:
                return []

    def files(self) -> dict[str, int]:
        return {name: size for name, size in self.under("").items() if not any(map(is_system, name.split("/")))}

    def has(self, name: str) -> bool:
        return self._kind(name) == "file"

    def json(self, name: str, limit: int = JSON_LIMIT) -> Json:
        with self._asking("read", name):
            data = self._files.cat_file(self._full(name), end=limit + 1)
            if len(data) > limit:
                raise DataError(f"{self}/{name} is larger than {limit:,} bytes, the most that is read as JSON here")
            return parse_json(data, f"{self}/{name}")

    def sha256(self, name: str) -> str:
        with self._asking("read", name), self._files.open(self._full(name), "rb", block_size=BLOCK) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def put(self, files: Mapping[str, bytes]) -> None:
        if self.lease is not None:
            self.lease.check()
        with self._asking("write"):
            self._files.pipe({self._full(name): data for name, data in files.items()})

    def put_new(self, name: str, data: bytes) -> bool:
        if self.lease is not None:
            self.lease.check()
        with self._asking("write", name):
            try:
                self._files.pipe_file(self._full(name), data, mode="create")
            except Exception:
                if not self.has(name):
                    raise
                return bool(self._files.cat_file(self._full(name)) == data)  # by an attempt whose answer was lost
        return True

    def delete(self, names: Iterable[str]) -> None:
        with self._asking("write"):
            if full := [self._full(name) for name in names]:
                self._files.rm(full)

    def check(self) -> None:
        self.holds()
        Lease(self).refuse_others()

    @contextmanager
    def alone(self) -> Iterator[None]:
        try:
            with Lease(self).held() as self.lease:
                yield
        finally:
            self.lease = None

    def zarr(self) -> Store:
        from zarr.storage import FsspecStore

        return FsspecStore.from_url(self.address, storage_options=OPTIONS, read_only=True)

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        import fsspec

        try:
            return fsspec.url_to_fs(self.address, **OPTIONS)  # type: ignore[no-any-return]
        except ImportError as error:
            raise InputError(f"{self}: {reason(error)} (for s3://: python -m pip install 'writesae[s3]')") from None
        except ValueError as error:
            raise InputError(f"{self} is no address that is known: {reason(error)}") from None

    @property
    def _files(self) -> Any:
        return self._opened[0]

    @property
    def _root(self) -> str:
        return self._opened[1]

    def _full(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    def _kind(self, name: str) -> str | None:
        with self._asking("read", name):
            try:
                return str(self._files.info(self._full(name))["type"])
            except FileNotFoundError:
                return None

    def under(self, name: str) -> dict[str, int]:
        """All files below a name, and their sizes."""
        with self._asking("read", name):
            found, start = self._files.find(self._full(name), detail=True), f"{self._root}/"
        return {
            full.removeprefix(start): told["size"]
            for full, told in found.items()
            if told["type"] == "file" and full.startswith(start) and not full.endswith("/")
        }

    def write(self, name: str, data: bytes) -> None:
        """Put one object, whoever holds the lease."""
        with self._asking("write", name):
            self._files.pipe_file(self._full(name), data)

    @contextmanager
    def _asking(self, verb: str, name: str = "") -> Iterator[None]:
        """What the service refuses is raised in one line."""
        try:
            self._opened  # noqa: B018 (outside: what is missing is said as it is)
            yield
        except WritesaeError:
            raise
        except Exception as error:
            kind = DataError if verb == "read" else OutputError
            raise kind(f"cannot {verb} {self}{f'/{name}' * bool(name)}: {reason(error)}") from None


@dataclass(frozen=True)
class _Told:
    """What a lease says."""

    holder: str
    until: float
    """Seconds since 1970."""


class Lease:
    """One of a place. Each asks under a name of its own and looks for others before and after: of two that come at
    once, at least one sees the other."""

    def __init__(self, bucket: Bucket) -> None:
        self.bucket, self.name, self.until = bucket, f"{LEASES}/{uuid4().hex}", 0.0
        self.over = threading.Event()

    @contextmanager
    def held(self) -> Iterator[Lease]:
        """Hold it and renew it for the length of a block; raises OutputError where another process does."""
        ended = self.refuse_others()
        self._renew()
        keeper = threading.Thread(target=self._keep, daemon=True)
        try:
            self.refuse_others()
            self.bucket.delete(ended)
            keeper.start()
            yield self
        finally:
            self.over.set()
            if keeper.is_alive():
                keeper.join()
            with suppress(WritesaeError):  # it ends by itself
                self.bucket.delete([self.name])

    def refuse_others(self) -> list[str]:
        """Raise OutputError where somebody holds one, saying who; returns those that have ended."""
        others = sorted(self.bucket.under(LEASES).keys() - {self.name})
        for name in others:
            with suppress(DataError, ConfigError):  # it has just been given back, or is none
                told = from_json(_Told, self.bucket.json(name))
                if (left := told.until - time.time()) > 0:
                    raise OutputError(
                        f"{told.holder} is at work in {self.bucket}: wait for it, or give another address (where it "
                        f"was killed, for {left:.0f} seconds)"
                    )
        return others

    def check(self) -> None:
        """Raise OutputError where it could not be renewed in time: somebody else may have begun."""
        if time.time() > self.until:
            raise OutputError(
                f"the lease on {self.bucket} could not be renewed for {SECONDS:.0f} seconds, so that another process "
                "may be at work there: run the same command again"
            )

    def _renew(self) -> None:
        until = time.time() + SECONDS
        told = json_bytes({"holder": this_process(), "until": until}, self.name)
        self.bucket.write(self.name, told)
        self.until = until

    def _keep(self) -> None:
        while not self.over.wait(SECONDS / 4) and time.time() < self.until:
            with suppress(OutputError):  # tried again until it ends
                self._renew()
