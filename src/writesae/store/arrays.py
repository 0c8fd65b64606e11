"""The arrays of a store: made and opened in one way, and no other is opened.

Every chunk ends with its CRC-32C, so that reading finds a flipped bit; those of version 1 had none. What an array's
`zarr.json` says is compared with what the header asks for before Zarr sees it, and a compressed chunk that claims
another size than its chunk has is refused before it is unpacked.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.abc.codec import BytesBytesCodec
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec
from zarr.core.array_spec import ArraySpec as ChunkSpec
from zarr.core.buffer import Buffer
from zarr.registry import register_codec
from zarr.storage import MemoryStore

from writesae.config import Json
from writesae.disk import LARGE, Place
from writesae.errors import DataError
from writesae.store.layout import Grid


class Pieces:
    """Files of a store that are made in memory, to be put where they belong."""

    def __init__(self) -> None:
        self._files: dict[str, bytes] = {}
        self._arrays: dict[str, tuple[zarr.Array[Any], dict[str, Buffer]]] = {}

    def group(self, name: str, attributes: Mapping[str, Json]) -> None:
        """A group, as Zarr writes it."""
        told = {"attributes": attributes, "zarr_format": 3, "node_type": "group"}
        self._files[f"{name}/zarr.json".lstrip("/")] = json.dumps(told, indent=2).encode()

    def write(
        self,
        name: str,
        grid: Grid,
        values: NDArray[np.generic],
        start: int = 0,
        attributes: Mapping[str, Json] | None = None,
    ) -> None:
        """Rows of an array from `start` on: whole chunks or shards, each once. The first make the array too."""
        if name not in self._arrays:
            packed: BytesBytesCodec = ZstdCodec(level=0)
            if grid.shards is not None:
                packed = BloscCodec(cname="zstd", clevel=3, shuffle="shuffle")
            held: dict[str, Buffer] = {}
            array = zarr.create_array(
                MemoryStore(held),
                shape=grid.shape,
                dtype=grid.dtype,
                shards=grid.shards,
                chunks=grid.chunks,
                compressors=(packed, Crc32cCodec()),
                fill_value=0,
                attributes=cast(Any, attributes),
                config={"write_empty_chunks": True},  # a shard of zeros (the decay of DeltaNet) must be a file too
            )
            self._arrays[name] = array, held
        array, held = self._arrays[name]
        array[start : start + len(values)] = values.astype(grid.dtype, copy=False)
        self._files |= {f"{name}/{key}": held.pop(key).to_bytes() for key in list(held)}

    def take(self) -> dict[str, bytes]:
        """What was made since the last time, by name."""
        made, self._files = self._files, {}
        return made


def open_array(root: Place, name: str, grid: Grid, *, checksums: bool) -> zarr.Array[Any]:
    """An array that is as the header asks for, to read; raises DataError naming what is otherwise."""
    if wrong := _difference(root.json(f"{name}/zarr.json", LARGE), grid, checksums):
        raise DataError(f"the array {name} of the store {root} is none that a capture writes: {wrong}; refused")
    with zarr.config.set({"codecs.blosc": _BLOSC, "codecs.zstd": _ZSTD}):
        return zarr.open_array(root.zarr(), path=name, mode="r", zarr_format=3)


def attributes(root: Place, name: str) -> dict[str, Json]:
    """The attributes of an array or group; raises DataError where there is none."""
    file = f"{name}/zarr.json".lstrip("/")
    data = root.json(file, LARGE)
    found = data.get("attributes", {}) if isinstance(data, dict) else None
    if not isinstance(found, dict) or (isinstance(data, dict) and data.get("consolidated_metadata") is not None):
        raise DataError(f"{root}/{file} is damaged: it tells of no array or group as a capture writes it")
    return found


def shape(root: Place, name: str) -> Json:
    """What an array says of its shape."""
    data = root.json(f"{name}/zarr.json", LARGE)
    return data.get("shape") if isinstance(data, dict) else None


def _difference(data: Json, grid: Grid, checksums: bool) -> str | None:
    """The first thing that an array's metadata says otherwise than we write it, in words."""
    found = dict(data) if isinstance(data, dict) else {}
    if not isinstance(found.pop("attributes", {}), dict):
        return "its attributes are no object"
    defaults: dict[str, Json] = {"storage_transformers": [], "dimension_names": None}
    wanted, told = _metadata(grid, checksums), defaults | found
    for key in (*wanted, *sorted(told.keys() - wanted.keys())):
        given, mine = (json.dumps(held.get(key)) for held in (told, wanted))  # true is not 1
        if given != mine:
            return f"{key} is {given[:200]}, not {mine[:200]}"
    return None


def _metadata(grid: Grid, checksums: bool) -> dict[str, Json]:
    """What we write of an array, its attributes apart."""
    little: Json = {"name": "bytes", "configuration": {"endian": "little"}}
    crc: Json = {"name": "crc32c"}
    packed: Json = {"name": "zstd", "configuration": {"level": 0, "checksum": False}}
    if grid.shards is not None:
        how: dict[str, Json] = {"cname": "zstd", "clevel": 3, "shuffle": "shuffle", "blocksize": 0}
        packed = {"name": "blosc", "configuration": {"typesize": np.dtype(grid.dtype).itemsize, **how}}
    codecs: list[Json] = [little, packed, crc] if checksums else [little, packed]
    if grid.shards is not None:
        inner: dict[str, Json] = {"chunk_shape": list(grid.chunks), "codecs": codecs}
        inner |= {"index_codecs": [little, crc], "index_location": "end"}
        codecs = [{"name": "sharding_indexed", "configuration": inner}]
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(grid.shape),
        "data_type": grid.dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(grid.shards or grid.chunks)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0.0 if grid.dtype.startswith("float") else 0,
        "codecs": codecs,
        "storage_transformers": [],
        "dimension_names": None,
    }


class _Blosc(BloscCodec):
    """Blosc that unpacks a chunk only where its frame claims the chunk's size."""

    async def _decode_single(self, chunk_bytes: Buffer, chunk_spec: ChunkSpec) -> Buffer:
        head = chunk_bytes[:16].to_bytes()
        _check_claim(int.from_bytes(head[4:8], "little") if len(head) == 16 else None, chunk_spec)
        return await super()._decode_single(chunk_bytes, chunk_spec)


class _Zstd(ZstdCodec):
    """The same of Zstandard (RFC 8878, 3.1.1.1)."""

    async def _decode_single(self, chunk_bytes: Buffer, chunk_spec: ChunkSpec) -> Buffer:
        head = chunk_bytes[:18].to_bytes()
        _check_claim(_zstd_size(head), chunk_spec)
        return await super()._decode_single(chunk_bytes, chunk_spec)


def _zstd_size(head: bytes) -> int | None:
    """What a frame says of its unpacked size; None where it does not."""
    if head[:4] != b"\x28\xb5\x2f\xfd" or len(head) < 6:
        return None
    said, single = head[4] >> 6, head[4] >> 5 & 1
    start = 5 + (not single) + (0, 1, 2, 4)[head[4] & 3]
    size = (single, 2, 4, 8)[said]
    return int.from_bytes(head[start : start + size], "little") + 256 * (said == 1) if size else None


def _check_claim(claimed: int | None, chunk: ChunkSpec) -> None:
    size = int(np.prod(chunk.shape, dtype=object)) * chunk.dtype.to_native_dtype().itemsize
    if claimed != size:
        raise ValueError(f"a chunk claims {claimed} bytes where it has {size:,}")


register_codec("blosc", _Blosc)
register_codec("zstd", _Zstd)
_BLOSC, _ZSTD = (f"{kind.__module__}.{kind.__qualname__}" for kind in (_Blosc, _Zstd))
"""Named where an array of ours is opened; everybody else's are opened with Zarr's own."""
