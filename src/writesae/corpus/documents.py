"""Documents from any source: the embedded sample, a file, a folder of files, a Hugging Face data set.

    sample                          the held-out text that ships with writesae
    notes.txt  notes.md             one document
    texts.jsonl                     one JSON object a line, the text under "text"
    texts.parquet                   one document a row, column "text"
    folder/                         every such file in it, by name
    hf:user/name?split=train        streamed from the Hub (extra `datasets`)

Text and JSONL may be compressed: `.gz`, `.xz`, `.zst`.
"""

from __future__ import annotations

import json
import lzma
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from writesae.corpus.compression import COMPRESSED, inner_suffix, open_text
from writesae.disk import files_under
from writesae.errors import DataError, InputError

SAMPLE = Path(__file__).parent / "sample" / "heldout.jsonl.xz"
"""34 documents, 1.05 MB of public-domain English that the embedded host never saw."""

HUB = "hf:"
"""Begins the name of a data set on the Hub."""

TEXT, LINES, TABLE = (".txt", ".md", ".text"), (".jsonl", ".ndjson"), (".parquet",)


class Document(NamedTuple):
    """One text with a name to cite it by."""

    name: str
    """What the source calls it, or file name and line."""
    text: str
    """The text itself."""


def read_documents(source: str | Path) -> Iterator[Document]:
    """The documents of a source, one at a time, in a fixed order. See the list at the top of this module.

    Raises InputError for a source that does not exist or is of no known kind, before the first document, and
    DataError for a damaged file, with the place.
    """
    if isinstance(source, str) and source.startswith(HUB):
        from writesae.corpus.huggingface import stream_dataset

        return (Document(name, text) for name, text in stream_dataset(source))
    return (document for file in _files(source) for document in _file(file))


def check_source(source: str | Path) -> None:
    """Raise InputError for a source that cannot be read as far as is seen without reading it or asking the Hub."""
    if isinstance(source, str) and source.startswith(HUB):
        from writesae.corpus.huggingface import check_spec

        check_spec(source)
    else:
        _files(source)


def _files(source: str | Path) -> list[Path]:
    """The files of a source, in order; what is hidden or private to a system (`.git`, `__MACOSX`) is none of them."""
    if source == "sample":
        return [SAMPLE]
    path = Path(source).expanduser()
    if path.is_dir():
        files = [file for file in files_under(path) if file.is_file() and _kind(file) is not None]
        if not files:
            raise InputError(f"corpus folder {path} holds no file of a known kind ({_known()})")
    elif path.is_file():
        if _kind(path) is None:
            raise InputError(f"corpus file {path} is of no known kind; known are {_known()}")
        files = [path]
    else:
        raise InputError(
            f'no corpus at {source}: give "sample", a file or folder ({_known()}), or hf:user/name for a Hub data set'
        )
    return files


def _known() -> str:
    return f"{', '.join(TEXT + LINES)}, also with {', '.join(COMPRESSED)}; {', '.join(TABLE)}"


def _kind(path: Path) -> tuple[str, ...] | None:
    suffix = inner_suffix(path)
    if suffix in TABLE and path.suffix.lower() in COMPRESSED:
        return None
    return next((kind for kind in (TEXT, LINES, TABLE) if suffix in kind), None)


def _file(path: Path) -> Iterator[Document]:
    kind = _kind(path)
    if kind is TABLE:
        return _table(path)
    return _lines(path) if kind is LINES else _text(path)


def _text(path: Path) -> Iterator[Document]:
    try:
        with open_text(path) as file:
            yield Document(path.name, file.read())
    except (OSError, EOFError, ValueError, lzma.LZMAError, zlib.error) as error:
        raise DataError(f"cannot read the corpus file {path}: {error}") from None


def _lines(path: Path) -> Iterator[Document]:
    number = 0
    try:
        with open_text(path) as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield _entry(path, number, line)
    except (OSError, EOFError, ValueError, lzma.LZMAError, zlib.error) as error:
        raise DataError(f"cannot read the corpus file {path} after line {number}: {error}") from None


def _entry(path: Path, number: int, line: str) -> Document:
    try:
        entry = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"line {number} of {path} is not JSON: {error}") from None
    if not isinstance(entry, dict) or not isinstance(entry.get("text"), str):
        keys = f"the keys {sorted(entry)}" if isinstance(entry, dict) else f"a {type(entry).__name__}"
        raise DataError(f'line {number} of {path} holds {keys}: it needs an object with a string "text"')
    return Document(str(entry.get("name", f"{path.name}:{number}")), entry["text"])


def _table(path: Path) -> Iterator[Document]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            if "text" not in file.schema_arrow.names:
                raise DataError(f'{path} has the columns {file.schema_arrow.names}: one must be named "text"')
            row = 0
            for batch in file.iter_batches(batch_size=256, columns=["text"]):
                for text in batch.column(0).to_pylist():
                    if not isinstance(text, str):
                        raise DataError(f'row {row} of {path}: "text" is {text!r}, not a string')
                    yield Document(f"{path.name}:{row}", text)
                    row += 1
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"cannot read the corpus file {path}: {error}") from None
