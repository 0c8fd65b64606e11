"""`manifest.json`: what a folder holds, byte for byte, and where it comes from. Format: docs/formats/sae.md."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypeVar

from writesae.config import Json, from_json, from_newer, to_json
from writesae.disk import JSON_LIMIT, LARGE, FileEntry, check_name, files_under, inside, read_json, write_json
from writesae.errors import ConfigError, DataError
from writesae.sae.record import Record

T = TypeVar("T")
NAMES = r"[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*"
"""What the names of dictionaries, and of the files in them, are like."""
MANIFEST = "manifest.json"
FORMAT = "writesae.sae"
VERSION = (1, 1)
"""Version of the folder format. Minor: additions that an older reader may ignore. Major: anything else."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The parsed `manifest.json` of one dictionary folder."""

    format: str = FORMAT
    """Name of the folder format."""
    version: str = ".".join(map(str, VERSION))
    """Version of the folder format, `major.minor`."""
    library: str
    """Version of writesae that wrote the folder."""
    record: Record
    """Where the dictionary comes from."""
    files: dict[str, FileEntry]
    """Every file of the folder except the manifest itself."""


def library_version() -> str:
    """The installed version of writesae."""
    try:
        return version("writesae")
    except PackageNotFoundError:
        return "0+unknown"


def write_manifest(folder: Path, record: Record) -> Manifest:
    """Hash every file under `folder` and write its manifest (the last file to be written)."""
    files = {path.relative_to(folder).as_posix(): FileEntry.of(path) for path in files_under(folder)}
    manifest = Manifest(library=library_version(), record=record, files=files)
    plain = to_json(replace(manifest, record=replace(record, text=None)))
    assert isinstance(plain, dict)
    write_json(folder / MANIFEST, plain | {"record": known(plain["record"])})
    return manifest


def known(data: Json) -> dict[str, Json]:
    """An object without what is unknown: null, or an empty object."""
    return {name: value for name, value in data.items() if value not in (None, {})} if isinstance(data, dict) else {}


def read_manifest(folder: Path) -> Manifest:
    """Read and check `manifest.json`; raises DataError where it is missing, damaged or of a newer major version."""
    if not (folder / MANIFEST).exists():
        raise DataError(f"{folder} has no {MANIFEST}: it is no dictionary folder, or writing it was interrupted")
    manifest = read_versioned(Manifest, inside(folder, MANIFEST), FORMAT, VERSION)
    for name in manifest.files:
        check_name(name, folder, NAMES)
    return manifest


def read_versioned(cls: type[T], path: Path, name: str, version: tuple[int, int], limit: int = JSON_LIMIT) -> T:
    """A JSON file of a format with a version; additions of a newer minor version are left out.

    Raises DataError for anything else, naming the fields that are wrong.
    """
    data = read_json(path, limit)
    newer = check_version(data, path, name, version)
    try:
        return (from_newer if newer else from_json)(cls, data)
    except ConfigError as error:
        raise DataError(f"{path}: {error}") from None


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


@dataclass(frozen=True, kw_only=True)
class Listed(FileEntry):
    """One file of a release."""

    path: str
    """Its name, relative to the release."""
    description: str
    """What it is."""


@dataclass(frozen=True, kw_only=True)
class Release:
    """The parsed `manifest.json` at the root of a release."""

    format: str = "writesae.release"
    version: str = "1.0"
    library: str
    """Version of writesae that wrote it."""
    files: tuple[Listed, ...]
    """Every file but this one, the index and the card made from it, and the cards of dictionaries."""


def release_files(root: Path) -> dict[str, FileEntry]:
    """Every file that a release's manifest lists; raises DataError where it is damaged, or names what it may not."""
    found = read_versioned(Release, inside(root, MANIFEST), "writesae.release", (1, 0), LARGE)
    for one in found.files:
        check_name(one.path, root)
    return {one.path: FileEntry(one.sha256, one.size) for one in found.files}


def check_files(folder: Path, files: Mapping[str, FileEntry], hashes: bool = True) -> None:
    """Compare each file's size, and with `hashes` its SHA-256; raises DataError for the first that differs."""
    for name, entry in files.items():
        path = inside(folder, name)
        if (problem := entry.problem(path, hashes=hashes)) is not None:
            raise DataError(f"{path} {problem}: it is not what its manifest lists; fetch it again")
