"""Open a text file whatever it is compressed with, by its suffix."""

from __future__ import annotations

import gzip
import io
import lzma
from pathlib import Path
from typing import TextIO

COMPRESSED = (".gz", ".xz", ".zst")
"""Suffixes of the compressions that can be read."""


def inner_suffix(path: Path) -> str:
    """The suffix below the compression: `.jsonl` for `a.jsonl.xz`, in lower case."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSED:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def open_text(path: Path) -> TextIO:
    """The decompressed UTF-8 text of a file, for reading line by line, without a byte order mark."""
    match path.suffix.lower():
        case ".gz":
            return gzip.open(path, "rt", encoding="utf-8-sig")
        case ".xz":
            return lzma.open(path, "rt", encoding="utf-8-sig")
        case ".zst":
            import pyarrow as pa

            # pyarrow is here anyway and streams zstd; the standard library learns it in Python 3.14 only
            return io.TextIOWrapper(pa.input_stream(path, compression="zstd"), encoding="utf-8-sig")
        case _:
            return path.open(encoding="utf-8-sig")
