"""How far a capture is: one small file a finished shard, and the manifest that is written last.

`shards/N.json` is put when all files of shard N are in place. `manifest.json` lists every file with size and SHA-256;
its presence means that the store is complete.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

from writesae.config import from_json, to_json
from writesae.disk import AT_ONCE, LARGE, FileEntry, Folder, Place, check_name, json_bytes, read_lines
from writesae.errors import ConfigError, DataError, OutputError

LEDGER, MANIFEST = "shards", "manifest.json"
LINES = "shards.jsonl"
"""The ledger of older versions: the same, a line a shard."""


@dataclass(frozen=True)
class Manifest:
    """The contents of a complete store."""

    hash: str
    """SHA-256 over the paths and hashes of all files: the identity of the store's content."""
    size: int
    """Bytes of all files together."""
    files: dict[str, FileEntry]
    """Path inside the store -> size and SHA-256."""


@dataclass(frozen=True)
class Shard:
    """One that is finished."""

    shard: int
    """Its number."""
    files: dict[str, FileEntry]
    """Its files, by path inside the store."""


def finish_shard(root: Place, shard: int, files: dict[str, FileEntry]) -> None:
    """Note that a shard is finished."""
    name = f"{LEDGER}/{shard}.json"
    root.put({name: json_bytes(to_json(Shard(shard, files)), name, indent=None)})


def noted(names: Iterable[str]) -> list[str]:
    """Which of these files say that shards are finished."""
    return [name for name in names if name == LINES or name.startswith(f"{LEDGER}/")]


def finished_shards(root: Place, *, hashes: bool = False) -> dict[int, dict[str, FileEntry]]:
    """The files of the shards that are finished and still in place: by size and, with `hashes`, by content."""
    present = root.files()

    def told(name: str) -> Shard | None:
        with suppress(DataError, ConfigError):
            return from_json(Shard, root.json(name))
        return None

    def whole(shard: Shard) -> bool:
        return all(
            present.get(name) == file.size and not (hashes and file.other_content(root.sha256(name)))
            for name, file in shard.files.items()
        )

    with ThreadPoolExecutor(AT_ONCE) as pool:
        names = [name for name in noted(present) if name != LINES]
        shards = [*_lines(root), *(shard for shard in pool.map(told, names) if shard is not None)]
        return {shard.shard: shard.files for shard, kept in zip(shards, pool.map(whole, shards), strict=True) if kept}


def _lines(root: Place) -> Iterator[Shard]:
    """Of an older version's ledger, up to what a kill cut short."""
    if isinstance(root, Folder) and root.has(LINES):
        with suppress(DataError, ConfigError):
            for line, _ in read_lines(root.path / LINES, cut=True):
                yield from_json(Shard, line)


def write_manifest(root: Place, files: dict[str, FileEntry]) -> None:
    """Mark a store as complete; raises OutputError where it is already, with other contents."""
    ordered = {name: files[name] for name in sorted(files)}
    manifest = Manifest(content_hash(ordered), sum(file.size for file in ordered.values()), ordered)
    if not root.put_new(MANIFEST, json_bytes(to_json(manifest), MANIFEST, indent=1)):
        raise OutputError(
            f"{root} was finished by another process, with other contents: ask `writesae verify` about them"
        )
    root.delete(noted(root.files()))


def read_manifest(root: Place) -> Manifest:
    """The manifest of a complete store; raises DataError where it is damaged."""
    try:
        manifest = from_json(Manifest, root.json(MANIFEST, LARGE))
    except (ConfigError, DataError) as error:
        raise DataError(f"the store {root} has a damaged manifest: {error}") from None
    for name in manifest.files:
        check_name(name, str(root))
    held = content_hash(manifest.files), sum(file.size for file in manifest.files.values())
    if held != (manifest.hash, manifest.size):
        raise DataError(f"the store {root} has a damaged manifest: its hash or size does not fit the files it lists")
    return manifest


def content_hash(files: dict[str, FileEntry]) -> str:
    """SHA-256 over `path NUL sha256 NL` in the order of the paths."""
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(f"{name}\0{files[name].sha256}\n".encode())
    return digest.hexdigest()
