"""Open a stream store and read the writes of one head."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
import zarr
from numpy.typing import NDArray
from torch import Tensor

from writesae.calls import worded
from writesae.config import from_json
from writesae.corpus import Fingerprint
from writesae.corpus.fingerprint import LIMIT, WINDOW
from writesae.disk import Folder, Place, place, reason
from writesae.errors import ConfigError, DataError, InputError
from writesae.recurrence.written import Written, native_update
from writesae.store.arrays import attributes, open_array, shape
from writesae.store.display import store_html, store_text
from writesae.store.layout import FORMAT, HEADER, TEXT, VERSION, Grid, Provenance, StoredLayer, array_path, grids
from writesae.store.progress import MANIFEST, Manifest, finished_shards, read_manifest
from writesae.types import Site

T = TypeVar("T")


class Erasure(NamedTuple):
    """What a head with an erase direction of its own takes out: `S_t = diag(d) S_{t-1} - e erased^T + k v^T`."""

    write: Tensor
    """`e_t`, `[B, T, K]`."""
    erased: Tensor
    """`f_t^T S_{t-1}`, `[B, T, V]`."""


@dataclass(frozen=True)
class StreamStore:
    """The captured streams of some layers of a host over N sequences of T tokens. Made by `open_store`."""

    place: Place
    """Where it is."""
    provenance: Provenance
    """Host, corpus, precision and versions that it comes from."""
    layers: dict[int, StoredLayer]
    """The layers in it, by model index."""
    hash: str
    """SHA-256 of the content."""
    size: int
    """Bytes on disk."""
    arrays: dict[str, Grid] = field(repr=False)
    """Every array in it, by name."""

    @property
    def path(self) -> Path:
        """Its folder; raises InputError for a store of object storage, which has none."""
        if not isinstance(self.place, Folder):
            raise InputError(f"the store {self.place} is in no folder: it is told by `place`")
        return self.place.path

    @property
    def sequences(self) -> int:
        """N."""
        return self.provenance.sequences

    @property
    def length(self) -> int:
        """Tokens a sequence, T."""
        return self.provenance.length

    @property
    def sites(self) -> list[Site]:
        """Every head in the store."""
        return [Site(index, head) for index, layer in self.layers.items() for head in range(layer.heads)]

    def tokens(self, rows: slice = slice(None)) -> NDArray[np.int64]:
        """Token ids of some sequences, `[B, T]`."""
        return self._load("tokens", rows).astype(np.int64)

    def document(self, rows: slice = slice(None)) -> NDArray[np.int64]:
        """Which of `documents` each sequence begins in, `[B]`."""
        found = self._load("document", rows).astype(np.int64)
        return self._within("document", found, len(self.documents) - 1)

    def padding(self, rows: slice = slice(None)) -> NDArray[np.int64]:
        """How many tokens at each sequence's start are padding, `[B]`: nothing is written there."""
        if "padding" not in self.arrays:
            return np.zeros(len(range(*rows.indices(self.sequences))), np.int64)
        return self._within("padding", self._load("padding", rows).astype(np.int64), self.length)

    @property
    def documents(self) -> tuple[str, ...]:
        """Names of the documents that the sequences come from."""
        return self._documents.names

    @property
    def documents_read(self) -> int:
        """How many documents were looked at for those; 0 where unknown."""
        return self._documents.read

    @property
    def twins(self) -> dict[str, str]:
        """Documents that were looked at and hold the words of another -> that other."""
        return self._documents.twins

    @cached_property
    def text(self) -> Fingerprint | None:
        """Which windows of tokens the store holds; None for an old store, or sequences shorter than a window.

        Raises DataError where it is damaged, or was made of other windows than are compared here.
        """
        if TEXT not in self.arrays:
            return None
        if attributes(self.place, TEXT) != {"window": WINDOW, "limit": LIMIT}:
            raise DataError(f"the store {self.place} has a fingerprint of other windows than of {WINDOW} tokens")
        return Fingerprint(self._load(TEXT, slice(None)).astype(np.int64, casting="no"))

    def read(self, site: Site, start: int, stop: int) -> Written:
        """The writes of one head over the sequences `start <= n < stop`, float32.

        Raises InputError for a head or sequences that are not in the store, or for a family whose token adds more
        than one rank-1 matrix (RWKV-7: `native` and `erasure` give its two parts), DataError for a damaged chunk.
        """
        layer = self._check(site, start, stop)
        if layer.erase == "own":
            raise InputError(
                f"{site} ({layer.family}) writes two rank-1 matrices a token, so it has no delta write: "
                "read its native writes and its erasure, or both as `pairs`"
            )
        return self._written(site, start, stop)

    def native(self, site: Site, start: int, stop: int) -> Tensor:
        """Native write values (`b v`; the native write is `k (b v)^T`) of one head, `[B, T, V]`, float32."""
        self._check(site, start, stop)
        return native_update(self._written(site, start, stop))

    def keys(self, site: Site, start: int, stop: int) -> Tensor:
        """Write keys of one head, `[B, T, K]`, float32."""
        self._check(site, start, stop)
        return self._head(site, "key", start, stop)

    def erasure(self, site: Site, start: int, stop: int) -> Erasure:
        """The second rank-1 part of a family that has one. Raises InputError for the others."""
        layer = self._check(site, start, stop)
        if layer.erase != "own":
            raise InputError(f"{site} ({layer.family}) erases nothing but along its key: its writes hold all of it")
        return Erasure(*(self._head(site, name, start, stop) for name in ("erase_write", "erased")))

    def pairs(self, site: Site, start: int, stop: int) -> Written:
        """The writes of a family with an erase direction of its own, two a token: `[B, 2 T, ..]`.

        `-e_t erased_t^T` after the decay of token `t`, then `k_t v_t^T` without one, so that the states after the odd
        numbered writes (from 0) are the tokens' states: any family's chunk of states is rebuilt in one way. Raises
        InputError for the other families, whose `read` holds all that a token adds.
        """
        erasure = self.erasure(site, start, stop)
        native = self._written(site, start, stop)
        decay = torch.stack([native.log_decay, torch.zeros_like(native.log_decay)], 2)
        key = torch.stack([-erasure.write, native.key], 2)
        update = torch.stack([erasure.erased, native.update], 2)
        return Written(key.flatten(1, 2), update.flatten(1, 2), decay.flatten(1, 2))

    def _written(self, site: Site, start: int, stop: int) -> Written:
        gate = self._head(site, "erase_gate", start, stop) if self.layers[site.layer].erase == "key" else None
        key, update, decay = (self._head(site, n, start, stop) for n in ("key", "update", "log_decay"))
        return Written(key, update, decay, gate)

    def _check(self, site: Site, start: int, stop: int) -> StoredLayer:
        layer = self.layers.get(site.layer)
        if layer is None or not 0 <= site.head < layer.heads:
            held = ", ".join(f"layer {n} (heads 0 to {found.heads - 1})" for n, found in self.layers.items())
            raise InputError(f"the store {self.place} has no site {site}; it has {held}")
        if not 0 <= start < stop <= self.sequences:
            raise InputError(
                f"sequences {start} to {stop} were asked of the store {self.place}, which has 0 to {self.sequences}"
            )
        return layer

    def _head(self, site: Site, name: str, start: int, stop: int) -> Tensor:
        values = self._load(array_path(site.layer, name), (slice(start, stop), slice(None), site.head))
        return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))

    def _load(self, name: str, where: slice | tuple[slice | int, ...]) -> NDArray[np.generic]:
        try:
            return np.asarray(self._array(name)[where])
        except self.place.errors as error:
            raise DataError(
                f"cannot read {name} of the store {self.place}: {reason(error)}; run `writesae verify`"
            ) from None

    def _within(self, name: str, found: NDArray[np.int64], most: int) -> NDArray[np.int64]:
        if len(found) and not 0 <= found.min() <= found.max() <= most:
            raise DataError(
                f"{name} of the store {self.place} holds {found.min()} to {found.max()}, beyond 0 to {most}"
            )
        return found

    @cached_property
    def _documents(self) -> _Documents:
        return _told(_Documents, attributes(self.place, "document"), f"the documents of the store {self.place}")

    @cached_property
    def _opened(self) -> dict[str, zarr.Array[Any]]:
        return {}

    def _array(self, name: str) -> zarr.Array[Any]:
        if name not in self._opened:
            self._opened[name] = open_array(self.place, name, self.arrays[name], checksums=self.provenance.version > 1)
        return self._opened[name]

    def __repr__(self) -> str:
        return store_text(self)

    def _repr_html_(self) -> str:
        return store_html(self)


@worded
def open_store(path: str | Path) -> StreamStore:
    """Open a complete store. Every file is checked for presence and size; `verify` checks contents too.

    Raises InputError where there is no store, DataError where it is incomplete, damaged, or no store of ours. A store
    without checksums is warned of.
    """
    root = place(path)
    provenance = read_header(root)
    if provenance is None:
        state = "is no stream store (writesae capture makes one)" if root.exists() else "does not exist"
        raise InputError(f"cannot open the store {root}: it {state}")
    if not root.has(MANIFEST):
        done = len(finished_shards(root))
        raise DataError(
            f"the store {root} is not complete: {done} of {provenance.shards} shards are captured; "
            "run the same capture again to finish it"
        )
    manifest, present = read_manifest(root), root.files()
    for name, file in manifest.files.items():
        if problem := "is missing" if name not in present else file.other_size(present[name]):
            raise DataError(f"the store {root} is cut short: {name} {problem}; capture it again into a new folder")
    layers = {index: _stored_layer(root, index) for index in provenance.layers}
    arrays = _arrays(root, provenance, layers, manifest)
    if provenance.version == 1:
        warnings.warn(f"the store {root} has no checksums: only `writesae verify` finds flipped bits", stacklevel=2)
    return StreamStore(root, provenance, layers, manifest.hash, manifest.size, arrays)


def _arrays(root: Place, header: Provenance, layers: dict[int, StoredLayer], manifest: Manifest) -> dict[str, Grid]:
    """The arrays of a store; raises DataError where the manifest does not list their files, and no others."""
    arrays = grids(header, layers)
    if (size := shape(root, TEXT) if f"{TEXT}/zarr.json" in manifest.files else None) is not None:
        told = _told(tuple[int], size, f"the fingerprint of the store {root}")
        arrays[TEXT] = Grid(told, "int64", told)
    if "padding/zarr.json" not in manifest.files:
        del arrays["padding"]
    if sum(grid.files for grid in arrays.values()) > len(manifest.files):
        raise DataError(f"the store {root} lists fewer files than its {header.sequences:,} sequences take")
    files = {name: grid.paths(name) for name, grid in arrays.items()}
    names = {"zarr.json", "layers/zarr.json", *(f"layers/{index}/zarr.json" for index in layers)}
    names |= {f"{name}/zarr.json" for name in arrays} | {path for paths in files.values() for path in paths}
    if wrong := sorted(names ^ manifest.files.keys()):
        listed = "lists" if wrong[0] in manifest.files else "does not list"
        raise DataError(f"the manifest of the store {root} {listed} {wrong[0][:200]!a}, which a capture would not do")
    for name, grid in arrays.items():
        sizes = [manifest.files[path].size for path in files[name]]
        if not grid.plausible(sizes):
            raise DataError(f"{name} of the store {root} has {sum(sizes):,} bytes, too few for {list(grid.shape)}")
    return arrays


def read_header(root: Place) -> Provenance | None:
    """The provenance that a store begins with; None where the place is no stream store.

    Raises DataError for a header that is damaged or of another version.
    """
    if not root.has("zarr.json"):
        return None
    found = attributes(root, "").get(HEADER)
    if found is None:
        return None
    version = found.get("version") if isinstance(found, dict) else None
    if not isinstance(found, dict) or found.get("format") != FORMAT or version not in range(1, VERSION + 1):
        raise DataError(f"the store {root} is not of the format {FORMAT} version 1 to {VERSION}, which are read here")
    return _told(Provenance, found, f"the header of the store {root}")


def _stored_layer(root: Place, index: int) -> StoredLayer:
    found = attributes(root, f"layers/{index}").get(HEADER)
    return _told(StoredLayer, found, f"the header of layer {index} of the store {root}")


@dataclass(frozen=True)
class _Documents:
    """What is said of the documents of a store."""

    names: tuple[str, ...]
    read: int = 0
    twins: dict[str, str] = field(default_factory=dict)


def _told(cls: type[T], data: object, what: str) -> T:
    try:
        return from_json(cls, data)
    except ConfigError as error:
        raise DataError(f"{what} is damaged: {error}") from None
