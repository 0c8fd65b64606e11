"""Check everything about a store and list what is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from writesae.disk import Place, place
from writesae.errors import DataError, WritesaeError
from writesae.store.arrays import open_array
from writesae.store.layout import Provenance
from writesae.store.progress import MANIFEST, finished_shards, noted, read_manifest
from writesae.store.reader import StreamStore, open_store, read_header


def verify(path: str | Path) -> list[str]:
    """Every problem of a store, one line each; an empty list means that it is whole.

    Checks the manifest, the presence, size and SHA-256 of every file, files that do not belong, the shape and
    dtype of every array, and that every stored number is finite.
    """
    root = place(path)
    try:
        provenance = read_header(root)
        if provenance is None:
            return [f"{root} is no stream store" if root.exists() else f"{root} does not exist"]
        problems = list(_files(root, provenance))
        return problems or list(_arrays(open_store(root.address)))
    except WritesaeError as error:
        return [str(error)]


def _files(root: Place, provenance: Provenance) -> Iterator[str]:
    if not root.has(MANIFEST):
        yield f"{MANIFEST} is missing: {len(finished_shards(root))} of {provenance.shards} shards are captured"
        return
    manifest, present = read_manifest(root), root.files()
    for name in sorted(present.keys() - manifest.files.keys() - {MANIFEST, *noted(present)}):
        yield f"{name} does not belong to the store"
    for name, file in manifest.files.items():
        problem = "is missing" if name not in present else file.other_size(present[name])
        if problem := problem or file.other_content(root.sha256(name)):
            yield f"{name} {problem}"


def _arrays(store: StreamStore) -> Iterator[str]:
    tokens, _, _ = store.tokens(), store.document(), store.padding()
    if tokens.min() < 0:
        yield f"tokens holds {tokens.min()}"
    if (text := store.text) is not None and text.overlap(tokens) == 0:
        yield "text is not the fingerprint of its tokens"
    for name, grid in store.arrays.items():
        if grid.shards is not None:
            array = open_array(store.place, name, grid, checksums=store.provenance.version > 1)
            yield from _not_finite(array, name, store)


def _not_finite(array: zarr.Array[Any], name: str, store: StreamStore) -> Iterator[str]:
    for shard in range(store.provenance.shards):
        start, stop = store.provenance.shard(shard)
        try:
            bad = np.argwhere(~np.isfinite(np.asarray(array[start:stop])))
        except store.place.errors as error:
            raise DataError(f"{name} shard {shard} cannot be read: {error}") from None
        if len(bad):
            sequence, position, head, _ = bad[0].tolist()
            yield f"{name} is not finite at sequence {start + sequence}, position {position}, head {head}"
