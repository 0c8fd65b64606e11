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

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from writesae.corpus.compression import COMPRESSED, inner_suffix, most_unpacked, pieces
from writesae.disk import LARGE, files_under, parse_json
from writesae.disk.files import reason
from writesae.errors import DataError, InputError, shown

SAMPLE = Path(__file__).parent / "sample" / "heldout.jsonl.xz"
"""34 documents, 1.05 MB of public-domain English that the embedded host never saw."""

HUB = "hf:"
"""Begins the name of a data set on the Hub."""

_LONGEST_NAME = 300

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
    kind, name = _kind(path), shown(path.name)
    if kind is TABLE:
        return _table(path, name)
    texts = pieces(path, LARGE, lines=kind is LINES)
    if kind is TEXT:
        return (Document(name, text) for text in texts)
    return (_entry(path, name, number, line) for number, line in enumerate(texts, 1) if line.strip())


def _entry(path: Path, name: str, number: int, line: str) -> Document:
    entry = parse_json(line, f"line {number} of {path}")
    if not isinstance(entry, dict) or not isinstance(entry.get("text"), str):
        keys = f"the keys {sorted(entry)}"[:200] if isinstance(entry, dict) else f"a {type(entry).__name__}"
        raise DataError(f'line {number} of {path} holds {keys}: it needs an object with a string "text"')
    return Document(str(entry.get("name", f"{name}:{number}"))[:_LONGEST_NAME], str(entry["text"]))


def _table(path: Path, name: str) -> Iterator[Document]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        names = pq.read_schema(path).names
        if "text" not in names:
            raise DataError(f'{path} has the columns {names}: one must be named "text"')
        # a text that many rows repeat is held once, as it is in the file
        with pq.ParquetFile(path, read_dictionary=["text"]) as file:
            row, left = 0, most_unpacked(path)
            if sum(file.metadata.row_group(i).total_byte_size for i in range(file.num_row_groups)) > left:
                raise ValueError("it unpacks to next to nothing")
            for batch in file.iter_batches(batch_size=64, columns=["text"]):
                held = batch.column(0)
                if not pa.types.is_dictionary(held.type):
                    raise DataError(f'"text" of {path} holds {held.type}, not strings')
                held.validate(full=True)  # a damaged file may name texts that it does not hold
                texts = held.dictionary.to_pylist()
                for text in (None if i is None else texts[i] for i in held.indices.to_pylist()):
                    if not isinstance(text, str):
                        raise DataError(f'row {row} of {path}: "text" is {str(text)[:200]!r}, not a string')
                    left -= len(text)
                    if len(text) > LARGE or left < 0:
                        raise ValueError(
                            f"row {row} has more than {LARGE:,} characters, or all unpack to next to nothing"
                        )
                    yield Document(f"{name}:{row}", text)
                    row += 1
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise DataError(f"cannot read the corpus file {path}: {reason(error)}") from None
