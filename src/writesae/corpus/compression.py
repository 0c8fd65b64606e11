"""Open a text file whatever it is compressed with, by its suffix."""

from __future__ import annotations

import gzip
import io
import lzma
import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from writesae.disk.files import reason
from writesae.errors import DataError

COMPRESSED = (".gz", ".xz", ".zst")
"""Suffixes of the compressions that can be read."""
_MOST_EMPTY = 1_000_000


def inner_suffix(path: Path) -> str:
    """The suffix below the compression: `.jsonl` for `a.jsonl.xz`, in lower case."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSED:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def open_bytes(path: Path) -> BinaryIO:
    """The decompressed bytes of a file, streamed."""
    match path.suffix.lower():
        case ".gz":
            return cast(BinaryIO, gzip.open(path))
        case ".xz":
            return cast(BinaryIO, lzma.open(path))
        case ".zst":
            import pyarrow as pa

            # pyarrow is here anyway and streams zstd; the standard library learns it in Python 3.14 only
            return io.BufferedReader(pa.input_stream(path, compression="zstd"))
        case _:
            return path.open("rb")


def most_unpacked(path: Path) -> int:
    """Bytes from which on a packed file is refused: text packs to a tenth, what packs to a 256th is no text."""
    return (64 << 20) + 256 * path.stat().st_size


def pieces(path: Path, limit: int, *, lines: bool) -> Iterator[str]:
    """The UTF-8 text of a file as one piece, or line by line, without a byte order mark.

    Raises DataError for a file that cannot be read, is cut short or is no UTF-8, and for one that would take all there
    is: a piece of more than `limit` bytes, text that packs to a 256th, or a million lines of nothing.
    """
    most = most_unpacked(path) if path.suffix.lower() in COMPRESSED else math.inf
    number = size = empty = 0
    try:
        with open_bytes(path) as file:
            while data := file.readline(limit + 1) if lines else file.read(limit + 1):
                number, size, empty = number + 1, size + len(data), empty + (len(data) <= 2)
                if len(data) > limit or size > most or empty > _MOST_EMPTY:
                    raise ValueError(f"it holds a document of more than {limit:,} bytes, or unpacks to next to nothing")
                yield data.decode("utf-8-sig" if number == 1 else "utf-8")
                if not lines and file.read(1):
                    raise ValueError(f"it is a document of more than {limit:,} bytes")
        if not size and most < math.inf:
            raise EOFError("it is cut short, or holds nothing")
        if not size and not lines:
            yield ""
    except (OSError, EOFError, ValueError, lzma.LZMAError, zlib.error) as error:
        after = f" after line {number}" * lines
        raise DataError(f"cannot read the corpus file {path}{after}: {reason(error)}") from None
