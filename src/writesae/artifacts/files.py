"""Folders that are there whole or not at all, and files that really are inside them.

A folder is written beside its final place under a name that ends in `.partial`, synced, and renamed once complete.
Names inside a folder come from JSON that somebody else may have written: they are plain relative names, and what
they point to is a regular file of that folder, never a link out of it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from writesae.disk import PARTIAL, partial_beside, sync, writing
from writesae.errors import DataError, InputError, OutputError


def inside(folder: Path, name: str) -> Path:
    """The regular file `name` of `folder`; raises DataError for `..`, absolute names, missing files and links.

    A link is followed only where the Hub's cache makes one: from `snapshots/` into `blobs/` of the same repository.
    """
    check_name(name, folder)
    path = folder / name
    real, root = Path(os.path.realpath(path)), Path(os.path.realpath(folder))
    if real != root / name and not any(real.is_relative_to(blobs) for blobs in _hub_blobs(root)):
        raise DataError(f"{path} is a link that leads out of the folder; refused")
    if not real.is_file():
        raise DataError(f"{path} is missing or is not a regular file")
    return path


def check_name(name: str, folder: Path) -> None:
    """Raise DataError for a name that is not relative, plain and inside (`..`, absolute, drives, `./`)."""
    pure = PurePosixPath(name)
    unusual = any(character in name for character in "\\:\0") or any(part == ".." for part in pure.parts)
    if not name or unusual or pure.is_absolute() or str(pure) != name or name == ".":
        raise DataError(f"{folder}: the name {name!r} is not a plain name inside the folder; refused")


def _hub_blobs(folder: Path) -> Iterator[Path]:
    for parent in folder.parents:
        if parent.name == "snapshots" and (parent.parent / "blobs").is_dir():
            yield Path(os.path.realpath(parent.parent / "blobs"))


@contextmanager
def new_folder(folder: Path, replaceable: Callable[[Path], bool]) -> Iterator[Path]:
    """A temporary folder that becomes `folder` when the block ends without an error, and vanishes otherwise.

    An existing `folder` that is not empty is replaced only where `replaceable(folder)` says so; the old one stays
    whole until the new one is on disk. Raises OutputError for a folder that belongs to something else.
    """
    folder = Path(folder)
    if folder.name.endswith(PARTIAL):
        raise InputError(f"{folder}: names that end in {PARTIAL} are kept for unfinished folders; choose another")
    partial = partial_beside(folder)
    with writing(folder):
        _check_free(folder, replaceable)
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial.mkdir()
        try:
            yield partial
            for inner in sorted((path for path in partial.rglob("*") if path.is_dir()), reverse=True):
                sync(inner)
            sync(partial)
            _check_free(folder, replaceable)
            _swap(partial, folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _check_free(folder: Path, replaceable: Callable[[Path], bool]) -> None:
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise OutputError(f"{folder} exists and is not a folder; choose another place")
    if folder.is_dir() and any(folder.iterdir()) and not replaceable(folder):
        raise OutputError(f"{folder} is not empty and belongs to something else; choose another or empty it first")


def _swap(partial: Path, folder: Path) -> None:
    old = None
    if folder.is_dir() and any(folder.iterdir()):
        old = partial_beside(folder.with_name(f"{folder.name}.old"))
        os.rename(folder, old)
    try:
        os.rename(partial, folder)
    except OSError:
        if old is not None:
            os.rename(old, folder)
        raise
    sync(folder.parent)
    if old is not None:
        shutil.rmtree(old, ignore_errors=True)
