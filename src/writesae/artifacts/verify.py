"""`verify`: everything that can be wrong with stored files, file by file."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from writesae.artifacts.collection import INDEX, Collection, cell_folders, read_collection, scan_cell
from writesae.artifacts.folder import CARD, CONFIG, WEIGHTS, content, read_listed
from writesae.artifacts.manifest import FORMAT, MANIFEST, check_files, read_manifest, release_files
from writesae.config import from_json
from writesae.disk import (
    LARGE,
    PARTIAL,
    FileEntry,
    files_under,
    is_address,
    is_system,
    map_tensors,
    read_json,
    read_lines,
)
from writesae.disk.tensors import SIZES
from writesae.errors import DataError, InputError, WritesaeError

RESULT = "writesae.result"
"""Format of summaries that list their tables."""
_RESULTS = (".json", ".jsonl", ".parquet", ".safetensors")


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong."""

    file: str
    """The file or folder."""
    problem: str
    """What is wrong with it."""

    def __str__(self) -> str:
        return self.problem if self.file in self.problem else f"{self.file}: {self.problem}"


@dataclass(frozen=True)
class Verification:
    """What was looked at and what is wrong."""

    kind: str
    """`dictionary`, `collection`, `store` or `results`."""
    checked: tuple[str, ...]
    """Files and folders that were looked at."""
    findings: tuple[Finding, ...]
    """Everything that is wrong; empty where all is well."""


def verify(path: str | Path) -> Verification:
    """Check a dictionary, a collection, a stream store, or a folder (or file) of results, down to every number.

    Hashes, sizes, missing and unlisted files, shapes, dtypes, NaN and infinity, indices. A store may be at an address.
    Raises InputError where `path` holds nothing that can be checked.
    """
    if is_address(path):
        kind, found = "store", list(_store(path))
    else:
        path = Path(path)
        if not path.exists():
            raise InputError(f"cannot verify {path}: it does not exist")
        kind = _kind(path)
        found = list(_CHECKS[kind](path))
    checked = [item for item in found if isinstance(item, str)]
    if not checked:
        raise InputError(f"{path} holds no dictionary, collection, store or result file that could be verified")
    return Verification(kind, tuple(checked), tuple(item for item in found if isinstance(item, Finding)))


def _kind(path: Path) -> str:
    if path.is_file():
        return "results"
    if (path / INDEX).exists():
        return "collection"
    if (path / "zarr.json").exists():
        return "store"
    return "dictionary" if _is_dictionary(path) else "results"


def _is_dictionary(path: Path) -> bool:
    """By what its manifest claims; a folder that claims nothing but has both other files is a broken dictionary."""
    if (path / CONFIG).exists() and (path / WEIGHTS).exists():
        return True
    try:
        data = read_json(path / MANIFEST)
    except DataError:
        return False
    return isinstance(data, dict) and data.get("format") == FORMAT


def _wrong(place: Path, look: Callable[[], object]) -> list[Finding]:
    """What a look at a place says that is wrong, if anything."""
    try:
        look()
    except WritesaeError as error:
        return [Finding(str(place), str(error))]
    return []


def _dictionary(folder: Path) -> Iterator[str | Finding]:
    yield str(folder)
    if folder.name.endswith(PARTIAL):
        yield Finding(str(folder), "is unfinished: writing it was interrupted")
    try:
        manifest = read_manifest(folder)
    except WritesaeError as error:
        yield Finding(str(folder / MANIFEST), str(error))
        return
    present = {path.relative_to(folder).as_posix() for path in files_under(folder)}
    for name in sorted(present - {MANIFEST, *manifest.files}):
        yield Finding(str(folder / name), "is not listed in the manifest")
    bad = list[Finding]()
    for name, entry in manifest.files.items():
        if name != CARD or (folder / CARD).exists():  # a dictionary fetched from the Hub comes without its card
            bad += _wrong(folder / name, partial(check_files, folder, {name: entry}))
    bad += _wrong(folder, partial(content, manifest))
    yield from bad or _wrong(folder, partial(read_listed, folder, manifest))


def _collection(root: Path) -> Iterator[str | Finding]:
    yield str(root / INDEX)
    try:
        collection = read_collection(root)
    except WritesaeError as error:
        yield Finding(str(root / INDEX), str(error))
        return
    for cell in collection.cells:
        found: list[str | Finding] = []
        found += _wrong(root / cell.path, partial(check_files, root, {f"{cell.path}/{MANIFEST}": cell.manifest}))
        found = found or list(_dictionary(root / cell.path))
        yield from found
        if not any(isinstance(item, Finding) for item in found) and scan_cell(root, root / cell.path) != cell:
            yield Finding(str(root / INDEX), f"describes {cell.path} otherwise than its own manifest and config do")
    listed = {cell.path for cell in collection.cells}
    for folder in cell_folders(root):
        if folder.relative_to(root).as_posix() not in listed:
            yield Finding(str(folder), "is not listed in the index")
    if (root / MANIFEST).exists():
        yield from _release(root, collection)
    for name, entry in collection.files.items():
        yield from _wrong(root / name, partial(check_files, root, {name: entry})) or _result(root / name)


def _release(root: Path, collection: Collection) -> Iterator[str | Finding]:
    """The list of all files at a release's root, against the files and against the index."""
    yield str(root / MANIFEST)
    try:
        files = release_files(root)
        check_files(root, files)
    except WritesaeError as error:
        yield Finding(str(root / MANIFEST), str(error))
        return
    cells = {f"{cell.path}/{MANIFEST}" for cell in collection.cells}
    for name in sorted((cells | collection.files.keys()) - files.keys() - {MANIFEST}):
        yield Finding(str(root / name), "is not listed in the release's manifest")


def _store(path: str | Path) -> Iterator[str | Finding]:
    from writesae.store import verify as verify_store

    yield str(path)
    for problem in verify_store(path):
        yield Finding(str(path), problem)


def _results(path: Path) -> Iterator[str | Finding]:
    if path.is_file():
        yield from _result(path)
        return
    for child in sorted(path.iterdir()):
        if child.name.endswith(PARTIAL):
            yield Finding(str(child), "is unfinished: writing it was interrupted")
        elif is_system(child.name):
            continue
        elif child.is_symlink():
            yield Finding(str(child), "is a link; links are not followed")
        elif child.is_dir():
            yield from _CHECKS[_kind(child)](child)
        elif child.suffix in _RESULTS:
            yield from _result(child)


def _result(path: Path) -> Iterator[str | Finding]:
    if path.suffix not in _RESULTS:
        return
    yield str(path)
    try:
        if path.suffix == ".parquet":
            yield from _parquet(path)
        elif path.suffix == ".safetensors":
            map_tensors(path, SIZES)
        elif path.suffix == ".jsonl":
            deque(read_lines(path, LARGE), 0)
        else:
            data = read_json(path, LARGE)
            if isinstance(data, dict) and data.get("format") == RESULT and "files" in data:
                check_files(path.parent, from_json(dict[str, FileEntry], data["files"]))
    except WritesaeError as error:
        yield Finding(str(path), str(error))


def _parquet(path: Path) -> Iterator[Finding]:
    try:
        with pq.ParquetFile(path) as file:
            start = 0
            for batch in file.iter_batches():
                for name, column in zip(batch.schema.names, batch.columns, strict=True):
                    if (problem := _column_problem(name, column)) is not None:
                        yield Finding(str(path), f"{problem} (rows {start} to {start + len(column) - 1})")
                start += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        yield Finding(str(path), f"is not a readable Parquet file: {str(error)[:200]}")


def _column_problem(name: str, column: pa.Array) -> str | None:
    while pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        column = column.flatten()
    if pa.types.is_floating(column.type):
        bad = pc.sum(pc.invert(pc.is_finite(column.cast(pa.float64())))).as_py()
        return f"column {name} holds {bad:,} numbers that are NaN or infinite" if bad else None
    if pa.types.is_signed_integer(column.type) and name in _INDICES and len(column):
        least = pc.min(column).as_py()
        wrong = least is not None and least < _INDICES[name]
        return f"column {name} holds the negative index {least}" if wrong else None
    return None


_INDICES = dict.fromkeys(("feature", "token", "position", "sequence", "layer", "document"), 0) | {"head": -1}
"""Column -> its least value; a head of -1 stands for all of its layer."""
_CHECKS = {"dictionary": _dictionary, "collection": _collection, "store": _store, "results": _results}
