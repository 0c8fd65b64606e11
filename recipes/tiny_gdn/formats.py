"""Readers for the two binary formats among the sources."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path


def sword_blocks(folder: Path, stem: str) -> Iterator[str]:
    """The compressed blocks (books) of a SWORD module.

    `STEM + "s"` is an index of 12-byte entries (offset, compressed size, size; little endian) into `STEM + "z"`.
    """
    index, data = (folder / f"{stem}s").read_bytes(), (folder / f"{stem}z").read_bytes()
    for offset, size, _ in struct.iter_unpack("<III", index):
        yield zlib.decompress(data[offset : offset + size]).decode("utf-8", "replace")


def r_character_vectors(database: Path) -> Iterator[list[str]]:
    """The character vectors of an R lazy-load database (`.rdb`), one an object, in file order.

    Each object is a 4-byte big-endian size and a zlib stream of R's XDR serialisation, in which a character vector
    is type 16, a count, then a flags word, a length (-1 for NA) and bytes a string.
    """
    data, position = database.read_bytes(), 0
    while position < len(data) - 6:
        stream = zlib.decompressobj()
        raw = stream.decompress(data[position + 4 :])
        position = len(data) - len(stream.unused_data)
        start = re.search(rb"\x00\x00\x00\x10(....)", raw, re.DOTALL)
        if start is None:
            continue
        yield _strings(raw, start.end(), *struct.unpack(">I", start[1]))


def _strings(raw: bytes, position: int, count: int) -> list[str]:
    strings = []
    for _ in range(count):
        (length,) = struct.unpack_from(">i", raw, position + 4)
        position += 8
        strings.append(raw[position : position + max(length, 0)].decode("utf-8", "replace"))
        position += max(length, 0)
    return strings
