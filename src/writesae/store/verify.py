"""Check everything about a store and list what is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from writesae.disk import files_under
from writesae.errors import DataError, WritesaeError
from writesae.store.layout import TEXT, Provenance, array_path, layer_arrays
from writesae.store.progress import MANIFEST, finished_shards, read_manifest
from writesae.store.reader import StreamStore, open_store, read_header


def verify(path: str | Path) -> list[str]:
    """Every problem of a store, one line each; an empty list means that it is whole.

    Checks the manifest, the presence, size and SHA-256 of every file, files that do not belong, the shape and
    dtype of every array, and that every stored number is finite.
    """
    root = Path(path)
    try:
        provenance = read_header(root)
        if provenance is None:
            return [f"{root} is no stream store" if root.exists() else f"{root} does not exist"]
        problems = list(_files(root, provenance))
        return problems or list(_arrays(open_store(root)))
    except WritesaeError as error:
        return [str(error)]


def _files(root: Path, provenance: Provenance) -> Iterator[str]:
    if not (root / MANIFEST).is_file():
        yield f"{MANIFEST} is missing: {len(finished_shards(root))} of {provenance.shards} shards are captured"
        return
    manifest = read_manifest(root)
    present = {path.relative_to(root).as_posix() for path in files_under(root)}
    for name in sorted(present - set(manifest.files) - {MANIFEST}):
        yield f"{name} does not belong to the store"
    for name, file in manifest.files.items():
        if problem := file.problem(root / name):
            yield f"{name} {problem}"


def _arrays(store: StreamStore) -> Iterator[str]:
    header = store.provenance
    group = zarr.open_group(store.path, mode="r", zarr_format=3)
    expected: list[tuple[str, tuple[int, ...], str]] = [
        ("tokens", (header.sequences, header.length), "int32"),
        ("document", (header.sequences,), "int32"),
    ]
    if (text := store.text) is not None:
        expected.append((TEXT, (len(text),), "int64"))
    if "padding" in group:
        expected.append(("padding", (header.sequences,), "int32"))
    for index, layer in store.layers.items():
        for spec in layer_arrays(layer, header.dtype):
            wide = (header.sequences, header.length, layer.heads, spec.width)
            expected.append((array_path(index, spec.name), wide, spec.dtype))
    for name, shape, dtype in expected:
        array = group.get(name)
        if not isinstance(array, zarr.Array):
            yield f"{name} is missing"
        elif (array.shape, str(array.dtype)) != (shape, dtype):
            yield f"{name} is {array.dtype} {list(array.shape)}, not {dtype} {list(shape)}"
        elif name.startswith("layers/"):
            yield from _not_finite(array, name, header)


def _not_finite(array: zarr.Array[Any], name: str, header: Provenance) -> Iterator[str]:
    for shard in range(header.shards):
        start, stop = header.shard(shard)
        try:
            bad = np.argwhere(~np.isfinite(np.asarray(array[start:stop])))
        except (OSError, ValueError, RuntimeError) as error:
            raise DataError(f"{name} shard {shard} cannot be read: {error}") from None
        if len(bad):
            sequence, position, head, _ = bad[0].tolist()
            yield f"{name} is not finite at sequence {start + sequence}, position {position}, head {head}"
