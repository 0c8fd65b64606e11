"""Folders that are there whole or not at all, and files that really are inside them.

A folder is written beside its final place under a name that ends in `.partial`, synced, and renamed once complete.
Names inside a folder come from JSON that somebody else may have written: they are plain relative names, and what
they point to is a regular file of that folder, never a link out of it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import shutil
import stat
import sys
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from writesae.disk.files import PARTIAL, make_folder, partial_beside, reason, sync, writing
from writesae.disk.lock import beside, locked
from writesae.errors import DataError, InputError, OutputError

OLD = f".old{PARTIAL}"
_SYSTEM = {"Thumbs.db", "desktop.ini", "Icon\r", "@eaDir", "$RECYCLE.BIN", "lost+found"}
_HERE = -2 if sys.platform == "darwin" else -100  # AT_FDCWD


def is_system(name: str) -> bool:
    """Whether a name belongs to the system or a tool rather than to what a folder is for (`.DS_Store`, `__MACOSX`), or
    to a file that a kill left unfinished."""
    return name.startswith((".", "__")) or name.endswith(PARTIAL) or name in _SYSTEM


def files_under(folder: Path, ending: str = "") -> list[Path]:
    """All files below a folder whose names end so, in order, links among them; without those of systems and tools."""
    found = (path for path in folder.rglob(f"*{ending}") if not path.is_dir())
    return sorted(path for path in found if not any(map(is_system, path.relative_to(folder).parts)))


def holds(folder: Path) -> list[str]:
    """The names in a folder that count, in order; none where there is no such folder."""
    return sorted(path.name for path in folder.iterdir() if not is_system(path.name)) if folder.exists() else []


def inside(folder: Path, name: str) -> Path:
    """The regular file `name` of `folder`; raises DataError for `..`, absolute names, missing files and links.

    A link is followed only where the Hub's cache makes one: from `snapshots/` into `blobs/` of the same repository.
    """
    check_name(name, folder)
    path = folder / name
    with suppress(OSError):  # what stands there itself leads nowhere else
        if "/" not in name and stat.S_ISREG(os.lstat(path).st_mode):
            return path
    real, root = Path(os.path.realpath(path)), Path(os.path.realpath(folder))
    if real != root / name and not any(real.is_relative_to(blobs) for blobs in _hub_blobs(root)):
        raise DataError(f"{path} is a link that leads out of the folder; refused")
    if not real.is_file():
        raise DataError(f"{path} is missing or is not a regular file")
    return path


def check_name(name: str, folder: Path | str, pattern: str = r"[^/]+(/[^/]+)*") -> None:
    """Raise DataError for a name that we do not write: not relative (`..`, absolute, drives, `./`), longer than 255
    bytes a part or 4,096 in all, with characters that are not shown or that look like others, not like `pattern`."""
    parts = name.split("/")
    shown = name.isprintable() and unicodedata.is_normalized("NFKC", name) and not set(name) & {"\\", ":"}
    short = shown and len(name) < 4096 and all(0 < len(part.encode()) <= 255 for part in parts)
    if not short or {".", ".."} & set(parts) or not re.fullmatch(pattern, name):
        told = name if len(name) <= 80 else name[:80] + ".."
        raise DataError(f"{folder}: the name {told!a} is not a plain name inside the folder; refused")


def regular_files(folder: Path) -> dict[str, int]:
    """The names and sizes of all files below a folder, without those of systems and tools; raises DataError for links,
    devices and the like."""
    found, waiting = dict[str, int](), [""]
    try:
        for place in waiting:
            with os.scandir(folder / place) as entries:
                for entry in entries:
                    name = place + entry.name
                    if is_system(entry.name):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(f"{name}/")
                    elif entry.is_file(follow_symlinks=False):
                        found[name] = entry.stat(follow_symlinks=False).st_size
                    else:
                        raise DataError(f"{folder}: {name!a} is a link or no regular file; refused")
    except OSError as error:
        raise DataError(f"cannot read {folder}: {reason(error)}") from None
    return found


def _hub_blobs(folder: Path) -> Iterator[Path]:
    for parent in folder.parents:
        if parent.name == "snapshots" and (parent.parent / "blobs").is_dir():
            yield Path(os.path.realpath(parent.parent / "blobs"))


@contextmanager
def new_folder(folder: Path, replaceable: Callable[[Path], bool] = lambda _: False) -> Iterator[Path]:
    """A temporary folder that becomes `folder` when the block ends without an error, and vanishes otherwise.

    An existing `folder` that is not empty is replaced only where `replaceable(folder)` says so; the old one stays
    whole until the new one is on disk. Raises OutputError for a folder that belongs to something else, or that another
    process is writing.
    """
    if folder.name.endswith(PARTIAL):
        raise InputError(f"{folder}: names that end in {PARTIAL} are kept for unfinished folders; choose another")
    partial = partial_beside(folder)
    with writing(folder):
        _check_free(folder, replaceable)
        make_folder(folder.parent)
        with locked(beside(folder), folder):
            _put_back(folder)
            partial.mkdir()
            try:
                yield partial
                for inner in sorted(partial.rglob("*"), reverse=True):
                    sync(inner)
                sync(partial)
                _check_free(folder, replaceable)
                _swap(partial, folder)
            finally:
                shutil.rmtree(partial, ignore_errors=True)


def _check_free(folder: Path, replaceable: Callable[[Path], bool]) -> None:
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise OutputError(f"{folder} exists and is not a folder; choose another place")
    if holds(folder) and not replaceable(folder):
        raise OutputError(f"{folder} is not empty and belongs to something else; choose another or empty it first")


def recover(folder: Path) -> None:
    """Put back what a kill between the two renames of a swap left beside `folder`, unless a process is at work there.

    Only file systems that cannot exchange two names in one step need it.
    """
    if not folder.exists() and _set_aside(folder):
        try:
            with locked(beside(folder), folder):
                _put_back(folder)
        except (OSError, OutputError):  # it cannot be written to, or somebody is about to do the same
            return


def _put_back(folder: Path) -> None:
    if not folder.exists() and (old := _set_aside(folder)):
        os.rename(old[0], folder)


def _set_aside(folder: Path) -> list[Path]:
    name = re.compile(rf"\.{re.escape(folder.name)}\.[0-9a-f]+{re.escape(OLD)}")
    return [path for path in folder.parent.glob(f".*{OLD}") if name.fullmatch(path.name)]


def _swap(partial: Path, folder: Path) -> None:
    """Put `partial` at `folder` in one step; what was there is at `partial` then, or gone."""
    if not folder.is_dir():
        os.rename(partial, folder)
    elif not _exchanged(partial, folder):
        old = partial.with_name(partial.name.removesuffix(PARTIAL) + OLD)
        os.rename(folder, old)  # killed here, the next writer or reader puts it back
        try:
            os.rename(partial, folder)
        except OSError:
            os.rename(old, folder)
            raise
        shutil.rmtree(old, ignore_errors=True)
    sync(folder.parent)


def _exchanged(one: Path, other: Path) -> bool:
    """Exchange two names in one step (Linux 3.15, macOS 10.12); False where the system or the file system cannot."""
    libc = ctypes.CDLL(None, use_errno=True)
    call = getattr(libc, "renameatx_np" if sys.platform == "darwin" else "renameat2", None)
    if call is None:
        return False
    if call(_HERE, os.fsencode(one), _HERE, os.fsencode(other), 2) == 0:  # RENAME_EXCHANGE, and RENAME_SWAP
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EPERM):
        return False
    raise OSError(code, os.strerror(code), str(other))
