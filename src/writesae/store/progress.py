"""How far a capture is, on disk: a line a finished shard, and the manifest that is written last.

`shards.jsonl` grows by one line when all files of a shard are in place; a line cut by a kill is ignored.
`manifest.json` lists every file with size and SHA-256; its presence means that the store is complete.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from writesae.config import from_json, to_json
from writesae.disk import (
    LARGE,
    FileEntry,
    check_name,
    json_bytes,
    read_json,
    read_lines,
    write_json,
    write_text,
    writing,
)
from writesae.errors import ConfigError, DataError

LEDGER, MANIFEST = "shards.jsonl", "manifest.json"


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
class _Line:
    """One of the ledger."""

    shard: int
    files: dict[str, FileEntry]


def append_shard(root: Path, shard: int, files: dict[str, FileEntry]) -> None:
    """Note that a shard is finished."""
    with writing(root / LEDGER), (root / LEDGER).open("a", encoding="utf-8") as ledger:
        ledger.write(_line(shard, files))
        ledger.flush()
        os.fsync(ledger.fileno())


def finished_shards(root: Path) -> list[dict[str, FileEntry]]:
    """The files of the shards 0, 1, ... that are finished and still in place."""
    done: list[dict[str, FileEntry]] = []
    with suppress(DataError, ConfigError):  # there is none, or a line of it was cut short
        for line, _ in read_lines(root / LEDGER, cut=True):
            entry = from_json(_Line, line)
            there = not any(file.problem(root / name, hashes=False) for name, file in entry.files.items())
            if entry.shard != len(done) or not there:
                break
            done.append(entry.files)
    return done


def rewrite_ledger(root: Path, done: list[dict[str, FileEntry]]) -> None:
    """Leave only these shards in the ledger, so that what a kill cut short cannot be mistaken for a line."""
    write_text(root / LEDGER, "".join(_line(shard, files) for shard, files in enumerate(done)))


def write_manifest(root: Path, files: dict[str, FileEntry]) -> None:
    """Mark a store as complete."""
    ordered = {name: files[name] for name in sorted(files)}
    manifest = Manifest(content_hash(ordered), sum(file.size for file in ordered.values()), ordered)
    write_json(root / MANIFEST, to_json(manifest), indent=1)
    (root / LEDGER).unlink(missing_ok=True)


def read_manifest(root: Path) -> Manifest:
    """The manifest of a complete store; raises DataError where it is damaged."""
    try:
        manifest = from_json(Manifest, read_json(root / MANIFEST, LARGE))
    except (ConfigError, DataError) as error:
        raise DataError(f"the store {root} has a damaged manifest: {error}") from None
    for name in manifest.files:
        check_name(name, root)
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


def _line(shard: int, files: dict[str, FileEntry]) -> str:
    return json_bytes(to_json(_Line(shard, files)), LEDGER, indent=None).decode()
