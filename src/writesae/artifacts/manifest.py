"""`manifest.json`: what a folder holds, byte for byte, and where it comes from. Format: docs/formats/sae.md."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from writesae.config import Json
from writesae.disk import files_under, inside, read_json, sha256, write_json
from writesae.errors import DataError, InputError
from writesae.sae.record import Record
from writesae.types import Site

MANIFEST = "manifest.json"
FORMAT = "writesae.sae"
VERSION = (1, 1)
"""Version of the folder format. Minor: additions that an older reader may ignore. Major: anything else."""


@dataclass(frozen=True)
class FileEntry:
    """One file of a folder."""

    sha256: str
    """SHA-256 of its bytes, 64 hexadecimal digits."""
    size: int
    """Its length in bytes."""

    @classmethod
    def of(cls, path: Path) -> FileEntry:
        """Of a file as it is now."""
        return cls(sha256(path), path.stat().st_size)


@dataclass(frozen=True)
class Manifest:
    """The parsed `manifest.json` of one dictionary folder."""

    record: Record
    """Where the dictionary comes from."""
    files: Mapping[str, FileEntry]
    """Every file of the folder except the manifest itself."""
    library: str
    """Version of writesae that wrote the folder."""
    version: str = ".".join(map(str, VERSION))
    """Version of the folder format, `major.minor`."""
    format: str = FORMAT
    """Name of the folder format."""


def library_version() -> str:
    """The installed version of writesae."""
    try:
        return version("writesae")
    except PackageNotFoundError:
        return "0+unknown"


def write_manifest(folder: Path, record: Record) -> Manifest:
    """Hash every file under `folder` and write its manifest (the last file to be written)."""
    files = {
        path.relative_to(folder).as_posix(): FileEntry(sha256(path), path.stat().st_size)
        for path in files_under(folder)
    }
    manifest = Manifest(record, files, library_version())
    head: dict[str, Json] = {"format": FORMAT, "version": manifest.version, "library": manifest.library}
    write_json(folder / MANIFEST, head | {"record": record_to_json(record), "files": files_to_json(files)})
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """Read and check `manifest.json`; raises DataError where it is missing, damaged or of a newer major version."""
    if not (folder / MANIFEST).exists():
        raise DataError(f"{folder} has no {MANIFEST}: it is no dictionary folder, or writing it was interrupted")
    path = inside(folder, MANIFEST)
    data = read_json(path)
    newer = check_version(data, path, FORMAT, VERSION)
    data = known_keys(data, {"format", "version", "library", "record", "files"}, path, newer)
    record = record_from_json(data["record"], path, newer)
    return Manifest(record, files_from_json(data["files"], path), str(data["library"]), str(data["version"]))


def files_to_json(files: Mapping[str, FileEntry]) -> dict[str, Json]:
    """The JSON form of a list of files."""
    return {name: {"sha256": entry.sha256, "size": entry.size} for name, entry in files.items()}


def files_from_json(data: Json, path: Path) -> dict[str, FileEntry]:
    """Names with their hashes and sizes; raises DataError for anything else."""
    if not isinstance(data, dict):
        raise DataError(f'{path}: "files" must be an object')
    entries = {}
    for name, entry in data.items():
        digest, size = (entry.get("sha256"), entry.get("size")) if isinstance(entry, dict) else (None, None)
        right = isinstance(digest, str) and re.fullmatch(r"[0-9a-f]{64}", digest) is not None
        if not right or type(size) is not int or size < 0 or len(entry) != 2:  # type: ignore[arg-type]
            raise DataError(f'{path}: the entry of {name[:80]!r} must be {{"sha256": 64 hex digits, "size": bytes}}')
        entries[name] = FileEntry(str(digest), size)
    return entries


def check_version(data: Json, path: Path, name: str, known: tuple[int, int]) -> bool:
    """Whether a newer minor version wrote `data`; raises DataError for another format or a newer major version."""
    if not isinstance(data, dict) or data.get("format") != name:
        given = data.get("format") if isinstance(data, dict) else type(data).__name__
        raise DataError(f"{path} is not a {name} file (its format is {given!r})")
    match = re.fullmatch(r"(\d{1,6})\.(\d{1,6})", str(data.get("version")))
    if match is None:
        raise DataError(f"{path}: the format version {data.get('version')!r} is not written like 1.0")
    major, minor = int(match[1]), int(match[2])
    if major != known[0]:
        raise DataError(
            f"{path} has format version {major}.{minor}; this writesae ({library_version()}) reads version "
            f"{known[0]}: install a {'newer' if major > known[0] else 'older'} writesae"
        )
    return minor > known[1]


def known_keys(data: Json, names: set[str], path: Path, newer: bool) -> dict[str, Json]:
    """The named keys of an object; raises DataError for a missing key, and for an unknown one unless `newer`."""
    if not isinstance(data, dict):
        raise DataError(f"{path}: expected an object with {', '.join(sorted(names))}, found {type(data).__name__}")
    if missing := names - data.keys():
        raise DataError(f"{path} lacks {', '.join(sorted(missing))}")
    if not newer and (unknown := data.keys() - names):
        raise DataError(f"{path} has unknown keys: {', '.join(sorted(unknown))}")
    return {name: data[name] for name in data if name in names}


def record_to_json(record: Record) -> dict[str, Json]:
    """The JSON form of a record without its fingerprint; facts that are unknown are left out."""
    values = {item.name: getattr(record, item.name) for item in fields(record) if item.name != "text"}
    values["site"] = None if record.site is None else str(record.site)
    plain = {name: dict(value) if isinstance(value, Mapping) else value for name, value in values.items()}
    return {name: value for name, value in plain.items() if value not in (None, {})}


def record_from_json(data: Json, path: Path, newer: bool = False) -> Record:
    """Build a record from its JSON form; raises DataError naming the field that is wrong."""
    kinds = {"site": str, "seed": int, "training": dict, "metrics": dict, "source": dict}
    kinds = {item.name: kinds.get(item.name, str) for item in fields(Record) if item.name != "text"}
    if not isinstance(data, dict):
        raise DataError(f"{path}: the record must be an object")
    if not newer and (unknown := data.keys() - kinds.keys()):
        raise DataError(f"{path}: the record has unknown keys: {', '.join(sorted(unknown))}")
    values: dict[str, Json] = {name: data[name] for name in data if name in kinds}
    for name, value in values.items():
        if not isinstance(value, kinds[name]) or isinstance(value, bool):
            raise DataError(f"{path}: {name} in the record is {value!r}, not a {kinds[name].__name__}")
    try:
        site = Site.parse(str(values.pop("site"))) if "site" in values else None
    except InputError as error:
        raise DataError(f"{path}: {error}") from None
    return Record(site=site, **values)  # type: ignore[arg-type]


def check_files(folder: Path, files: Mapping[str, FileEntry], hashes: bool = True) -> None:
    """Compare each file's size, and with `hashes` its SHA-256; raises DataError for the first that differs."""
    for name, entry in files.items():
        path = inside(folder, name)
        size = path.stat().st_size
        if size != entry.size:
            raise DataError(f"{path} has {size:,} bytes where its manifest says {entry.size:,}; fetch it again")
        if hashes and (digest := sha256(path)) != entry.sha256:
            raise DataError(f"{path} has SHA-256 {digest[:16]}.. where its manifest says {entry.sha256[:16]}..")
