"""One process at a time: an advisory lock on a file that names its holder, and that the system lifts at any death."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from writesae.errors import OutputError

LOCK = ".lock"
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)
_mine: set[str] = set()
"""Lock files that this process holds."""


def within(folder: Path) -> Path:
    """The lock file of a folder that is written bit by bit."""
    return folder / LOCK


def beside(folder: Path) -> Path:
    """The lock file of a folder that appears whole."""
    return folder.parent / f".{folder.name}{LOCK}"


def this_process() -> str:
    """How this process is named to others."""
    return f"process {os.getpid()} on {socket.gethostname()}"


@contextmanager
def locked(lock: Path, folder: Path) -> Iterator[None]:
    """Hold a lock file for the length of a block; it is gone afterwards.

    Raises OutputError where another process holds it, saying which one of which host, and OSError where the file
    cannot be made. On a file system without locks a warning says so.
    """
    handle = _taken(lock, folder)
    _mine.add(os.path.realpath(lock))
    try:
        os.ftruncate(handle, 0)
        os.pwrite(handle, this_process().encode(), 0)
        yield
    finally:
        _mine.discard(os.path.realpath(lock))
        lock.unlink(missing_ok=True)  # before it is let go of: whoever waits looks whether its file is still there
        os.close(handle)


def _taken(lock: Path, folder: Path) -> int:
    while True:
        handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            _lock(handle, folder)
            if lock.exists() and os.path.samestat(os.fstat(handle), lock.stat()):
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # its holder has just taken it away


def _lock(handle: int, folder: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            warnings.warn(f"{folder}: no locks on this file system, let no other process write there", stacklevel=2)
            return
        if error.errno not in (errno.EAGAIN, errno.EACCES):
            raise
        holder = os.pread(handle, 300, 0).decode("utf-8", "replace") or "another process"
        raise OutputError(f"{holder} is at work in {folder}: wait for it, or give another folder") from None


def check_unlocked(folder: Path) -> None:
    """Raise OutputError where another process is writing `folder`, saying which."""
    for lock in (within(folder), beside(folder)):
        if lock.is_file() and os.path.realpath(lock) not in _mine and os.access(lock, os.R_OK | os.W_OK):
            handle = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
            try:
                _lock(handle, folder)
            finally:
                os.close(handle)
