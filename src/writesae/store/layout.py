"""What a stream store is made of: its header, its layers, its arrays and their chunks (docs/formats/store.md)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from writesae.config import at_least, at_most, not_empty
from writesae.errors import ConfigError

FORMAT, VERSION = "writesae-streams", 2
"""Version 2: every chunk ends with its CRC-32C. Stores of version 1 are read."""
HEADER = "writesae"
"""The attribute of the root group that holds the `Provenance`."""
SMALL, TEXT = ("tokens", "document", "padding"), "text"
"""Arrays of one number or row a sequence, and the one that holds the fingerprint of all of them."""
CHUNK_BYTES = 1 << 20
"""Uncompressed size that a chunk (some sequences of one head) does not exceed unless one sequence does."""
TOKEN_ROWS = 1024
"""Sequences a chunk of the token array."""

Precision = Literal["float16", "float32"]


@dataclass(frozen=True)
class Provenance:
    """Where a store comes from. A capture resumes only where all of this is the same."""

    format: str
    """Always `writesae-streams`."""
    version: int
    """Version of the format."""
    host: str
    """Name of the model."""
    revision: str
    """SHA-256 over the model's configuration and weights."""
    host_dtype: str
    """Precision in which the host ran, like `float32`."""
    tokenizer: str | None
    """SHA-256 of the tokenizer; None where the host has none."""
    corpus: str
    """Hash of the token blocks."""
    sequences: int
    """N."""
    length: int
    """Tokens a sequence, T."""
    layers: tuple[int, ...]
    """Model layers captured, in rising order."""
    dtype: Precision
    """Precision of keys and updates."""
    batch: int
    """Sequences a shard."""
    versions: dict[str, str]
    """Versions of the libraries that ran the capture."""
    source: str | None = None
    """Name of the corpus; None where unknown."""
    part: str | None = None
    """Which part of the corpus: `all`, `train of 0.8`, `test of 0.8`; None where unknown."""

    def __post_init__(self) -> None:
        at_least(self, sequences=1, length=1, batch=1, layers=0)
        at_most(self, sequences=2**40, length=2**20, batch=2**16, layers=2**16)
        not_empty(self, "layers")
        if list(self.layers) != sorted(set(self.layers)):
            raise ConfigError(f"the layers {list(self.layers)} do not rise")

    @property
    def described(self) -> str | None:
        """Name and part of the corpus; None where unknown."""
        return None if self.source is None else f"{self.source}, {self.part}"

    @property
    def shards(self) -> int:
        """Batches in the capture."""
        return -(-self.sequences // self.batch)

    def shard(self, index: int) -> tuple[int, int]:
        """First sequence of a shard and the one after its last."""
        return index * self.batch, min((index + 1) * self.batch, self.sequences)


@dataclass(frozen=True)
class StoredLayer:
    """One recurrent layer in a store."""

    heads: int
    """H."""
    d_k: int
    """K, the key side."""
    d_v: int
    """V, the value side."""
    family: str
    """The host's recurrence family."""
    vector_decay: bool
    """Whether each key channel decays on its own (`log_decay` is `[.., K]`, else `[.., 1]`)."""
    erase: Literal["none", "key", "own"]
    """Nothing is erased; along the key with a gate (delta family); along a direction of its own (RWKV-7)."""

    def __post_init__(self) -> None:
        at_least(self, heads=1, d_k=1, d_v=1)
        at_most(self, heads=2**16, d_k=2**16, d_v=2**16)


class Grid(NamedTuple):
    """Shape, type and pieces of an array."""

    shape: tuple[int, ...]
    dtype: str
    chunks: tuple[int, ...]
    shards: tuple[int, ...] | None = None
    """Of one file; None where every chunk is one."""

    @property
    def files(self) -> int:
        """How many files hold its chunks; they lie along the first axis."""
        return -(-self.shape[0] // (self.shards or self.chunks)[0])

    def paths(self, name: str) -> list[str]:
        """Those files, for an array of this name."""
        return [f"{name}/c/{number}{'/0' * (len(self.shape) - 1)}" for number in range(self.files)]

    def plausible(self, sizes: list[int]) -> bool:
        """Whether files of these sizes can hold it: an index of 16 bytes a chunk, chunks that Blosc can unpack, and
        tokens, which never pack to a thousandth and are read at once."""
        if self.shards is None:
            return 4 * math.prod(self.shape) <= 2**26 + 1000 * sum(sizes)
        chunks = math.prod(-(-whole // part) for whole, part in zip(self.shards, self.chunks, strict=True))
        return 4 * math.prod(self.chunks) < 2**31 and 16 * chunks <= min(sizes)


class ArraySpec(NamedTuple):
    """One array `[N, T, H, width]` of a layer."""

    name: str
    width: int
    dtype: Precision


def layer_arrays(layer: StoredLayer, dtype: Precision) -> tuple[ArraySpec, ...]:
    """The arrays of a layer, in the order in which they are written."""
    arrays = [
        ArraySpec("key", layer.d_k, dtype),
        ArraySpec("update", layer.d_v, dtype),
        ArraySpec("log_decay", layer.d_k if layer.vector_decay else 1, "float32"),
    ]
    if layer.erase == "key":
        arrays.append(ArraySpec("erase_gate", 1, "float32"))
    if layer.erase == "own":
        arrays += [ArraySpec("erase_write", layer.d_k, dtype), ArraySpec("erased", layer.d_v, dtype)]
    return tuple(arrays)


def grids(header: Provenance, layers: Mapping[int, StoredLayer]) -> dict[str, Grid]:
    """Every array of a store but its fingerprint, by name; `padding` is there where sequences are padded."""
    rows = (header.sequences,)
    tokens = (*rows, header.length)
    found = {"tokens": Grid(tokens, "int32", (min(TOKEN_ROWS, header.sequences), header.length))}
    found |= {name: Grid(rows, "int32", rows) for name in ("document", "padding")}
    for index, layer in layers.items():
        for spec in layer_arrays(layer, header.dtype):
            some = chunk_sequences(header.batch, header.length, spec.width, spec.dtype)
            found[array_path(index, spec.name)] = Grid(
                (*tokens, layer.heads, spec.width),
                spec.dtype,
                (some, header.length, 1, spec.width),
                (header.batch, header.length, layer.heads, spec.width),
            )
    return found


def chunk_sequences(batch: int, length: int, width: int, dtype: Precision) -> int:
    """Sequences a chunk: the largest divisor of the batch that keeps a chunk of one head under `CHUNK_BYTES`."""
    one = length * width * (2 if dtype == "float16" else 4)
    return max(n for n in range(1, batch + 1) if batch % n == 0 and (n == 1 or n * one <= CHUNK_BYTES))


def array_path(layer: int, name: str) -> str:
    """Where an array of a layer lives inside the store."""
    return f"layers/{layer}/{name}"
